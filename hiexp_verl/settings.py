"""What makes a class a block of settings: bounds and types of values, and errors in one line that say what was found and what to do."""

import difflib
import os
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import cache, wraps
from pathlib import Path
from reprlib import Repr
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails
from typing_extensions import dataclass_transform

from hiexp_verl.errors import HiExpError

Config = TypeVar("Config")
MOST = 10**9  # of a count: more is a slip, and no library takes it
Count = Annotated[int, Field(ge=1, le=MOST, strict=True)]
Natural = Annotated[int, Field(ge=0, le=MOST, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**31, strict=True)]  # servers want it to fit a signed 32-bit number
Flag = Annotated[bool, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
# A `Path` is taken, too; `~` is the home directory.
PathText = Annotated[str, BeforeValidator(lambda value: os.path.expanduser(value) if isinstance(value, str | Path) else value)]

# Settings that had another name; the error names the new one.
_RENAMED = {
    "start": "prompt",
    "step": "tool",
    "control": "arm (hiexp.val_arm for validation)",
    "val_control": "val_arm",
    "with_experience": "arms, e.g. hiexp.group.arms=[full,none]",
    "stratified": "arms, e.g. hiexp.group.arms=[none,prompt,tool,full]",
}
# The same of arms.
RENAMED_ARMS = {
    "base": "none",
    "hek": "full",
    "hek-start": "prompt",
    "start-only": "prompt",
    "hek-step": "tool",
    "step-only": "tool",
    "with-own-question": "own-question",
}


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def settings(**options: Any) -> Callable[[type[Config]], type[Config]]:
    """Return what makes a class a frozen pydantic dataclass that raises a `HiExpError`, in the words of `parse_block`."""

    def make(cls: type[Config]) -> type[Config]:
        made = dataclass(frozen=True, config={"extra": "forbid", "arbitrary_types_allowed": True}, **options)(cls)
        check = made.__init__

        @wraps(check)
        def __init__(self: Config, *args: Any, **values: Any) -> None:
            try:
                check(self, *args, **values)
            except ValidationError as error:
                raise HiExpError(_in_words(error.errors()[0], cls, cls.__name__, "setting")) from error

        made.__init__ = __init__
        return made

    return make


def parse_block(cls: type[Config], block: Any, path: str, what: str = "setting") -> Config:
    """Return the dataclass that a block of settings holds; `path` is its name in errors. Raises as `parse_config`."""
    if not isinstance(block, dict):
        raise HiExpError(f"{path} must be a block of settings, found {_FOUND.repr(block)[:200]}")
    try:
        return _adapter(cls).validate_python(block)
    except ValidationError as error:
        raise HiExpError(_in_words(error.errors()[0], cls, path, what)) from error


def block_of(settings: Any) -> dict[str, Any]:
    """Return settings as the JSON object that they are written as."""
    return _adapter(type(settings)).dump_python(settings, mode="json")


@cache
def _adapter(cls: type[Config]) -> "TypeAdapter[Config]":
    return TypeAdapter(cls)


_MUST_BE = {
    "literal_error": "one of {expected}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "finite",
    "bool_type": "true or false",
    "string_type": "a text",
    "tuple_type": "a list",
    "dict_type": "an object",
    "dataclass_type": "a block of settings",
    "path_type": "a path",
    "unexpected_positional_argument": "given by name",
}


# Bounded before it is written: aliases in YAML make a text of gigabytes of a few lines.
_FOUND = Repr()
_FOUND.maxlevel, _FOUND.maxstring, _FOUND.maxother, _FOUND.maxlong = 2, 200, 200, 40


def _in_words(error: ErrorDetails, cls: Any, path: str, what: str) -> str:
    """Return one line: what is wrong, what was found, what to do."""
    where, known = path, get_type_hints(cls)
    positions: dict[int | str, str] = dict(enumerate(known))
    for each in error["loc"]:
        key = positions.get(each, each)
        if key in known:  # what else pydantic puts into a location is its own
            where, hint = f"{where}.{key}", known[str(key)]
            owner = next((kind for kind in (hint, *get_args(hint)) if is_dataclass(kind)), None)
            known = get_type_hints(owner) if owner else {}
    kind, limits = error["type"], error.get("ctx", {})
    if kind == "unexpected_keyword_argument":
        key = str(error["loc"][-1])
        return f"unknown {what} {where}.{key}; {_suggest(key, list(known))}"
    if kind == "missing":
        last = str(error["loc"][-1])
        return f"{where if where.endswith('.' + last) else f'{where}.{last}'} is missing"
    must = _MUST_BE[kind].format(**limits) if kind in _MUST_BE else error["msg"].removeprefix("Input should be ")
    if kind == "literal_error":
        must = must.replace("'", "").replace(" or ", ", ")
        if "own-question" in must and isinstance(error["input"], str) and error["input"] in RENAMED_ARMS:
            return f"{where}: {renamed_arm(error['input'])}"
    return f"{where} must be {must}, found {_FOUND.repr(error['input'])[:200]}"


def renamed_arm(name: str) -> str:
    """Return the line that says what an arm is called now."""
    return f"the arm {name!r} is called {RENAMED_ARMS[name]!r} now"


def _suggest(key: str, known: list[str]) -> str:
    if key in _RENAMED:
        return f"it is called {_RENAMED[key]} now"
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"did you mean {nearest[0]!r}?" if nearest else f"known here: {', '.join(known)}"
