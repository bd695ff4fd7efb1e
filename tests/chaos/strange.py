"""Changed content: bytes of a file, values of a row."""

import random
from typing import Any


def mutated(content: bytes, chance: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(5)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[at:at] = bytes(chance.choice((b"\x00", b"\xff", b'"', b"{", b"[" * 50, b"9" * 30, b"\\ud83d", b"\x1b[2J", b"null", b"\n")))
        elif kind == 2:
            del data[at : at + chance.choice((1, 10, 1000))]
        elif kind == 3:
            other = chance.randrange(len(data) + 1)
            data[at:at] = data[other : other + 40]
        else:
            data = data[:at]
    return bytes(data)


STRANGE: list[Any] = [
    None,
    True,
    0,
    -1,
    1e308,
    10**30,
    10**400,
    "",
    " ",
    "\ud83d",
    "\x00",
    "a" * 5000,
    [],
    {},
    [[]],
    {"a": 1},
    ["a", 1],
    "[1",
    "{'a': ",
]


def strange(value: Any, chance: random.Random, depth: int = 0) -> Any:
    if chance.random() < 0.12 or depth > 4:
        return chance.choice(STRANGE)
    if isinstance(value, dict):
        return {key: strange(each, chance, depth + 1) for key, each in value.items() if chance.random() > 0.04}
    if isinstance(value, list):
        return [strange(each, chance, depth + 1) for each in value] * chance.choice((1, 1, 1, 0, 2))
    if isinstance(value, str) and chance.random() < 0.2:
        return mutated(value.encode("utf-8", "surrogatepass"), chance).decode("utf-8", "replace")
    return value
