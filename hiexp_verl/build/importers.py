"""Trajectories of other projects, turned into ours."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hiexp_verl.jsonl import read_jsonl
from hiexp_verl.types import Message, Trajectory

_SYSTEM = "Answer the question. Search as often as needed, then give a short answer."
_TURN = re.compile(
    r"(?P<think>.*?)<\|begin_of_query\|>(?P<query>.*?)<\|end_of_query\|>\s*<\|begin_of_documents\|>(?P<docs>.*?)<\|end_of_documents\|>",
    re.DOTALL,
)
_DOCUMENT = re.compile(r"\((\d+)\)\"?Title: (.*?) Text:\s*(.*?)(?=\n\(\d+\)\"?Title: |\Z)", re.DOTALL)


def read_r1_searcher(path: Path) -> Iterator[Trajectory]:
    """Yield the trajectories of an R1-Searcher evaluation file (JSON lines with `dataset`, `question`, `answer`, `text`, ...).

    Raises:
        HiExpError: missing or empty file, malformed line.
    """
    numbers: dict[tuple[str, str], int] = {}
    samples: dict[str, int] = {}
    for _, row in read_jsonl(path, "trajectory file"):
        key = (row["dataset"], row["question"])
        number = numbers.setdefault(key, sum(dataset == row["dataset"] for dataset, _ in numbers) + 1)
        question_id = f"{row['dataset']}-{number}"
        samples[question_id] = samples.get(question_id, -1) + 1
        yield _trajectory(row, question_id, samples[question_id])


def _trajectory(row: dict[str, Any], question_id: str, sample: int) -> Trajectory:
    return Trajectory(
        question_id=question_id,
        question=row["question"].strip(),
        answers=(str(row["answer"]).strip(),),
        messages=tuple(_messages(row["question"].strip(), row["text"])),
        prediction=str(row["prediction"]).strip(),
        score=float(row["correct"]),
        correct=bool(row["correct"]),
        model=row["model"],
        id=f"{question_id}#{sample}",
    )


def _messages(question: str, text: str) -> list[Message]:
    messages: list[Message] = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": question}]
    end = 0
    for turn in _TURN.finditer(text):
        end = turn.end()
        think, query = turn["think"].strip(), turn["query"].strip()
        messages.append({"role": "assistant", "content": f"{think}\n<search> {query} </search>"})
        messages.append({"role": "tool", "content": f"<information>\n{_documents(turn['docs'])}\n</information>"})
    messages.append({"role": "assistant", "content": text[end:].strip()})
    return messages


def _documents(text: str) -> str:
    lines = []
    for number, title, body in _DOCUMENT.findall(text.strip()):
        lines.append(f'Doc {number}(Title: "{title}") {" ".join(body.split()).strip(chr(34))}')
    return "\n".join(lines)
