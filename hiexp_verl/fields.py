"""Fields of a row: each is taken out and checked, a fault is a `BadRow`."""

import math
import sys
from collections.abc import Mapping
from reprlib import repr as brief
from typing import Any

from hiexp_verl.rows import BadRow
from hiexp_verl.types import Message

Row = Mapping[str, Any]


def required(row: Row, key: str) -> Any:
    """Return the value, which must be there."""
    if row.get(key) is None:
        raise BadRow(f"the field {key!r} is null" if key in row else f"no field {key!r}", f"found {brief(sorted(row))}")
    return row[key]


def text(row: Row, key: str) -> str:
    """Return a text that is not blank, stripped."""
    value = required(row, key)
    if not isinstance(value, str):
        raise BadRow(f"{key!r} must be a text", f"found {brief(value)}")
    if not value.strip():
        raise BadRow(f"the {key} is empty")
    return value.strip()


def number(row: Row, key: str) -> float:
    """Return a finite number."""
    value = required(row, key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise BadRow(f"{key!r} must be a number", f"found {brief(value)}")
    return float(value)


def name(row: Row, key: str) -> str:
    """Return an id as text: a text or a number that is not blank."""
    value = required(row, key)
    if isinstance(value, bool | dict | list) or not str(value).strip():
        raise BadRow(f"{key!r} must be a text or a number", f"found {brief(value)}")
    return str(value)


def flag(row: Row, key: str) -> bool:
    """Return true or false."""
    value = required(row, key)
    if not isinstance(value, bool):
        raise BadRow(f"{key!r} must be true or false", f"found {brief(value)}")
    return value


def block(row: Row, key: str) -> dict[str, Any]:
    """Return a copy of an object, an empty one when there is none."""
    value = row.get(key) or {}
    if not isinstance(value, dict):
        raise BadRow(f"{key!r} must be an object", f"found {brief(value)}")
    return dict(value)


ANSWERS, ALIASES = ("answers", "golden_answers", "answer"), "answer_aliases"


def answers(row: Row) -> tuple[str, ...]:
    """Return the first of `ANSWERS` that is not blank, and the aliases, each a list or a single one; at least one that is not blank."""
    values = [*next((found for key in ANSWERS if (found := filled(row.get(key)))), []), *filled(row.get(ALIASES))]
    odd = [v for v in values if isinstance(v, bool | dict | list) or (isinstance(v, float) and not math.isfinite(v))]
    if odd:
        raise BadRow("an answer must be a text or a number", f"found {brief(odd[0])}")
    # A column of numbers comes as floats: 1889.0 is the year that a policy writes as 1889.
    whole = [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]
    if not whole:
        raise BadRow("no answer", "give 'answer' (text) or 'answers' (a list)")
    return tuple(dict.fromkeys(str(v).strip() for v in whole))


def filled(value: Any) -> list[Any]:
    """Return what is not blank of a list or a single value."""
    return [one for one in (value if isinstance(value, list) else [value]) if one is not None and str(one).strip()]


def messages(row: Row) -> tuple[Message, ...]:
    """Return `messages`: objects with a role, whose content is a text, a list of parts, or nothing beside tool calls."""
    value = required(row, "messages")
    if not isinstance(value, list) or not all(_is_message(message) for message in value):
        raise BadRow("'messages' must be a list of objects with 'role' and 'content'", f"found {brief(value)}")
    return tuple(value)


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("role"), str)
        and isinstance(value.get("content"), str | list | None)
        and isinstance(value.get("tool_calls"), list | None)
    )
