"""What the controls are played with, and what they must have in common."""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from table import BASELINE

from hiexp_verl.config import CONTROLS
from hiexp_verl.errors import HiExpError
from hiexp_verl.hashing import sha256_of
from hiexp_verl.hek.store import HEK
from hiexp_verl.jsonl import atomic_writer, read_questions
from hiexp_verl.run.policy import MARKER
from hiexp_verl.types import Question


@dataclass(frozen=True)
class Sources:
    """What is played with: all of it from the demo, unless given."""

    policy: Path  # with --train: where training starts
    hek: Path
    questions: tuple[Path, ...]  # --train trains on the first file, and names the last for validation
    corpus: Path


def chosen_controls(text: str) -> list[str]:
    """Return the names asked for, `none` among them.

    Raises:
        HiExpError: one is unknown.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in CONTROLS]
    if unknown:
        raise HiExpError(f"unknown control {unknown[0]!r}; choose from {', '.join(CONTROLS)}")
    return list(dict.fromkeys([*names, BASELINE]))


def find_sources(arguments: argparse.Namespace) -> Sources:
    """Return what is played with.

    Raises:
        HiExpError: a part is neither given nor left by the demo.
    """
    demo: Path = arguments.demo
    given = (arguments.model, arguments.hek, arguments.questions, arguments.corpus)
    if any(each is None for each in given) and not (demo / "grpo" / "done.json").is_file():
        raise HiExpError(
            f"{demo} is no finished demo; run `make demo`, name another with --from, or give --model --hek --questions --corpus"
        )
    assets = demo / "assets"
    sources = Sources(
        policy=arguments.model or (demo / "warm_start" / "model" if arguments.train else _after_grpo(demo)),
        hek=arguments.hek or demo / "build" / "hek",
        questions=tuple(arguments.questions or (assets / "train.jsonl", assets / "val.jsonl")),
        corpus=arguments.corpus or assets / "factbook" / "corpus.jsonl",
    )
    for path in (sources.policy, sources.hek, *sources.questions, sources.corpus):
        if not path.exists():
            raise HiExpError(f"{path} does not exist; give another --model, --hek, --questions or --corpus, or run `make demo` again")
    if arguments.train and len(sources.questions) < 2:
        raise HiExpError("--train needs two files as --questions: the first to train on, the last for validation")
    return sources


def _after_grpo(demo: Path) -> Path:
    checkpoints = demo / "grpo" / "checkpoints"
    latest = checkpoints / MARKER
    step = latest.read_text(encoding="utf-8").strip() if latest.is_file() else "0"
    return checkpoints / f"global_step_{step}" / "actor" / "huggingface"


def pick_questions(files: tuple[Path, ...], limit: int) -> list[Question]:
    """Return the first `limit` questions of each file."""
    if limit < 1:
        raise HiExpError(f"--limit must be at least 1, found {limit}")
    questions = {q.id: q for file in files for q in read_questions(file)[:limit]}
    return list(questions.values())


def check_settings(path: Path, arguments: argparse.Namespace, sources: Sources, questions: list[Question], hek: HEK) -> dict[str, Any]:
    """Write the settings that all controls share, or compare them with those of the run that is there; return them.

    Raises:
        HiExpError: the run that is there had others: a table of both would compare what cannot be compared.
    """
    wanted = {
        "policy": "/".join(sources.policy.resolve().parts[-4:]),
        "hek": hek.header.content_hash,
        "corpus": sha256_of(sources.corpus),
        "questions": [q.id for q in questions],
        **{name: getattr(arguments, name) for name in ("k", "temperature", "seed", "train")},
        "algorithm": arguments.algorithm if arguments.train else "",
    }
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else wanted
    for name, value in wanted.items():
        if found.get(name) != value:
            was = str(found.get(name))[:60]
            raise HiExpError(f"{path.parent} was made with {name} = {was}, now it is {str(value)[:60]}; give another --out")
    with atomic_writer(path) as file:
        file.write(json.dumps(wanted, indent=1) + "\n")
    return wanted
