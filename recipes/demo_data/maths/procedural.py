"""Generated problems with known answers, in two families: `chain_sum` (47 + 8 - 23) and `word_problem` (two steps, a story around them).

Every problem is computed, never looked up: `meta.expression` is the calculation, `meta.solution` a derivation of it. No two splits share a
problem, because the numbers of a problem decide its split. reasoning-gym has many more families, and eleven dependencies for them.
"""

import random
from collections.abc import Callable
from hashlib import sha256

from hiexp_verl.types import Question

SEED = 0  # fixed, so that every machine has the same problems
SIZES = {"train": 2000, "val": 200, "test": 300}
_NAMES = "Ann Ben Carla Dan Emma Felix Grace Hugo Ida Jonas Kim Leo Mia Noah Olga Paul Rosa Sam Tina Uma".split()  # noqa: SIM905
_THINGS = "apples books cards coins cups eggs marbles pens shells stamps stickers toys".split()  # noqa: SIM905


def problems_of(family: str) -> list[Question]:
    """Return all problems of a family, split by split; the same on every call."""
    rng = random.Random(f"{SEED}/{family}")
    found: dict[str, list[Question]] = {split: [] for split in SIZES}
    seen = set[tuple[str | int, ...]]()
    while any(len(found[split]) < size for split, size in SIZES.items()):
        numbers, text, expression, steps = FAMILIES[family](rng)
        split = _split_of(numbers)
        if numbers in seen or len(found[split]) == SIZES[split]:
            continue
        seen.add(numbers)
        answer = steps[-1].rpartition("= ")[2]
        meta = {"family": family, "split": split, "expression": expression, "solution": "\n".join([*steps, rf"\boxed{{{answer}}}"])}
        found[split].append(Question(f"{family}-{split}-{len(found[split]):04d}", text, (answer,), meta))
    return [question for questions in found.values() for question in questions]


def _split_of(numbers: tuple[str | int, ...]) -> str:
    share = int(sha256(repr(numbers).encode()).hexdigest(), 16) % 10
    return "train" if share < 8 else "val" if share == 8 else "test"


_Problem = tuple[tuple[str | int, ...], str, str, list[str]]  # what decides the split, text, expression, steps


def _chain_sum(rng: random.Random) -> _Problem:
    terms = [rng.randint(1, 60) for _ in range(rng.randint(3, 5))]
    signs = [rng.choice("+-") for _ in terms[1:]]
    expression, total, steps = str(terms[0]), terms[0], list[str]()
    for sign, term in zip(signs, terms[1:], strict=True):
        before, total = total, total + (term if sign == "+" else -term)
        steps.append(f"{before} {sign} {term} = {total}")
        expression += f" {sign} {term}"
    return (expression,), f"What is {expression}?", expression, steps


def _word_problem(rng: random.Random) -> _Problem:
    name, other = rng.sample(_NAMES, 2)
    things = rng.choice(_THINGS)
    kind = rng.choice(tuple(_STORIES))
    a, b = rng.randint(2, 12), rng.randint(2, 12)
    c = _third(kind, a, b, rng)
    story, question, expression, steps = _STORIES[kind](a, b, c)
    aside = rng.choice(("", f" {name} is {rng.randint(6, 60)} years old.", f" {other} has {rng.randint(13, 90)} {things}, too."))
    text = f"{story}{'' if kind == 'together' else aside} {question}".format(name=name, other=other, things=things)
    return (kind, a, b, c), text, expression, steps


def _third(kind: str, a: int, b: int, rng: random.Random) -> int:
    """Return the third number of a story: at most the product, more than it for what is paid, a divisor of it for boxes, or none."""
    if kind == "together":
        return 0
    if kind == "change":
        return a * b + rng.randint(1, 60)
    if kind == "boxes":
        return rng.choice([n for n in range(2, a * b + 1) if a * b % n == 0])
    return rng.randint(1, a * b)


def _left(a: int, b: int, c: int) -> tuple[str, str, str, list[str]]:
    story = f"{{name}} has {a} boxes with {b} {{things}} each and gives away {c} {{things}}."
    return story, "How many {things} does {name} have left?", f"{a} * {b} - {c}", [f"{a} * {b} = {a * b}", f"{a * b} - {c} = {a * b - c}"]


def _change(a: int, b: int, c: int) -> tuple[str, str, str, list[str]]:
    story = f"{{name}} buys {a} {{things}} for ${b} each and pays with ${c}."
    return story, "How many dollars does {name} get back?", f"{c} - {a} * {b}", [f"{a} * {b} = {a * b}", f"{c} - {a * b} = {c - a * b}"]


def _together(a: int, b: int, _: int) -> tuple[str, str, str, list[str]]:
    story = f"{{name}} has {a} {{things}}. {{other}} has {b} times as many."
    steps = [f"{a} * {b} = {a * b}", f"{a} + {a * b} = {a + a * b}"]
    return story, "How many {things} do they have together?", f"{a} + {a} * {b}", steps


def _boxes(a: int, b: int, c: int) -> tuple[str, str, str, list[str]]:
    story = f"{{name}} collects {a} {{things}} a day. After {b} days {{name}} packs all of them in boxes of {c}."
    return story, "How many boxes does {name} fill?", f"{a} * {b} / {c}", [f"{a} * {b} = {a * b}", f"{a * b} / {c} = {a * b // c}"]


_STORIES: dict[str, Callable[[int, int, int], tuple[str, str, str, list[str]]]] = {
    "left": _left,
    "change": _change,
    "together": _together,
    "boxes": _boxes,
}
FAMILIES: dict[str, Callable[[random.Random], _Problem]] = {"chain_sum": _chain_sum, "word_problem": _word_problem}
