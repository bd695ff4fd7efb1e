"""Write the question sets of mathematics in the package's own format: gsm8k, MATH-500, and the generated families."""

import gzip
import json
import logging
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

from hiexp_verl.domains.maths.answers import boxed_answer, gold_of
from hiexp_verl.errors import HiExpError
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.types import Question
from recipes.demo_data.assets import fetch
from recipes.demo_data.maths.procedural import FAMILIES, problems_of

logger = logging.getLogger(__name__)

_NOTES = re.compile(r"<<[^<>]*>>")  # gsm8k's calculations beside the text
_SPLITS = {"gsm8k": {"test": 300, "train": 660}, "math500": {"test": 250}}  # the rest is val, of MATH-500 train


def write_maths_sets(cache: Path | None, out_dir: Path) -> dict[str, int]:
    """Write all sets below out_dir and return how many lines each file got; cache as for `assets.fetch`.

    The files: gsm8k/{train,val,test}.jsonl, math500/{train,test}.jsonl, chain_sum and word_problem/{train,val,test}.jsonl. The same bytes
    on every call.

    Raises:
        HiExpError: an asset cannot be fetched or read.
    """
    sets = {"gsm8k": read_gsm8k(fetch("gsm8k", cache)), "math500": read_math500(fetch("math500", cache))}
    sets |= {family: problems_of(family) for family in FAMILIES}
    counts = dict[str, int]()
    for name, questions in sets.items():
        for split in dict.fromkeys(question.meta["split"] for question in questions):
            rows = (question for question in questions if question.meta["split"] == split)
            counts[f"{name}/{split}.jsonl"] = write_jsonl(out_dir / name / f"{split}.jsonl", rows)
    for name, count in counts.items():
        logger.info("%s: %d lines", out_dir / name, count)
    return counts


def read_gsm8k(folder: Path) -> list[Question]:
    """Return the 1,319 questions of gsm8k's test set: 660 to learn from, 300 to test on, 359 to validate on."""
    rows = _docs(folder, "question", "answer")
    solutions = [_NOTES.sub("", row["answer"]).partition("####")[0].strip() for row in rows]
    made = [
        Question(f"gsm8k-{number:04d}", row["question"].strip(), (gold_of(row["answer"]),), {"family": "gsm8k", "solution": solution})
        for number, (row, solution) in enumerate(zip(rows, solutions, strict=True))
    ]
    return _split("gsm8k", made, "val")


def read_math500(folder: Path) -> list[Question]:
    r"""Return the 500 questions of MATH-500, half to learn from, half to test on; the answer is that of the solution's last `\boxed{}`.

    The answers beside them lack spaces ("\cotx") and signs ("357" for 3, 5, 7).
    """
    made = [
        Question(
            f"math500-{number:03d}",
            row["problem"].strip(),
            (boxed_answer(row["solution"]) or "",),
            {"family": "math500", "level": row["level"], "solution": row["solution"].strip()},
        )
        for number, row in enumerate(_docs(folder, "problem", "solution", "level"))
    ]
    if bare := [question.id for question in made if not question.answers[0]]:
        raise HiExpError(
            f"{len(bare)} solutions of MATH-500 have no boxed answer, the first is {bare[0]}; delete {folder} and fetch it again"
        )
    return _split("math500", made, "train")


def _split(name: str, questions: list[Question], rest: str) -> list[Question]:
    """Return the questions with their split, by the hash of their text."""
    order = sorted(questions, key=lambda question: sha256(question.question.encode()).hexdigest())
    splits = [split for split, size in _SPLITS[name].items() for _ in range(size)]
    for question, split in zip(order, splits, strict=False):
        question.meta["split"] = split
    for question in order[len(splits) :]:
        question.meta["split"] = rest
    return questions


def _docs(folder: Path, *fields: str) -> list[dict[str, Any]]:
    path = folder / "requests.jsonl.gz"
    try:
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").splitlines()
        docs = [json.loads(line)["doc"] for line in lines]
        return [{field: doc[field] for field in fields} for doc in docs]
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise HiExpError(f"{path} is not the file of questions ({error!r}); delete {folder} and fetch it again") from error
