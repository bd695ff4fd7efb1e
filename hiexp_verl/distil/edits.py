"""Edits: what a new entry does to the entries that are near it.

| op | |
| --- | --- |
| ADD | it comes |
| UPDATE n | it takes the place of n, and rests on what both rest on |
| DELETE n | it comes, and n is suspected: the ledger decides |
| NONE | it does not come |

Source: Training-Free GRPO (arXiv:2510.08191), by local numbers instead of ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from hiexp_verl.distil.replies import Schema, schema_of
from hiexp_verl.types import Entry

Op = Literal["ADD", "UPDATE", "DELETE", "NONE"]
EDIT_SCHEMA: Schema = schema_of(op={"type": "string", "enum": list(get_args(Op))}, number={"type": "integer"})


@dataclass(frozen=True)
class Edit:
    """An operation, and the entry that it is about, for UPDATE and DELETE."""

    op: Op
    target: Entry | None = None


def parsed_edit(row: Any, near: Sequence[Entry]) -> Edit | None:
    """Return the edit that a model's answer holds, strictly; None where it holds none."""
    if not isinstance(row, dict) or set(row) != {"op", "number"} or row["op"] not in get_args(Op):
        return None
    number = row["number"]
    if row["op"] in ("ADD", "NONE"):
        return Edit(row["op"])
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= len(near):
        return None
    return Edit(row["op"], near[number - 1])
