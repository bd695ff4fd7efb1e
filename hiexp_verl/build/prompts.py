"""The prompts of a distiller that asks a model, filled from prompts/*.txt."""

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from string import Template

from hiexp_verl.build.describe import describe
from hiexp_verl.build.diagnose import Diagnosis
from hiexp_verl.build.draft import Draft
from hiexp_verl.build.rules import advice_over
from hiexp_verl.types import Entry, Level

PROMPTS = Path(__file__).parents[1] / "prompts"
_MOST_CHILDREN = 12  # shown to a model for one summary; more do not fit a small context


def prompt_files() -> dict[str, str]:
    """Return the prompt files, by name."""
    names = ("distil_e1.txt", "distil_examples.jsonl", "summarise_e2.txt", "summarise_e3.txt", "confirm.txt")
    return {name: (PROMPTS / name).read_text(encoding="utf-8") for name in names}


def reflection_prompt(diagnosis: Diagnosis, attempt: int) -> str:
    """Return what asks for an E1; a repetition shows other examples."""
    shown = "\n".join(_show(example) for example in examples_for(diagnosis, attempt))
    return _template("distil_e1.txt").substitute(examples=shown, diagnosis=describe(diagnosis))


def summary_prompt(group: Sequence[Entry], level: Level, attempt: int) -> str:
    """Return what asks for the entry above a group, most telling members first; a repetition shows them in another order."""
    shown = list(group[:_MOST_CHILDREN])[:: -1 if attempt else 1]
    children = "\n".join(f"- ({entry.title}) {entry.description}" for entry in shown)
    return _template(f"summarise_{level}.txt").substitute(children=children, known=advice_over(group, level).description)


def confirmation_prompt(draft: Draft, member: Entry) -> str:
    """Return what asks whether a summary holds for one of its members."""
    texts = {"title": draft.title, "description": draft.description}
    return _template("confirm.txt").substitute(**texts, member_title=member.title, member_description=member.description)


def examples_for(diagnosis: Diagnosis, attempt: int) -> list[dict[str, str]]:
    """Draw two worked examples with other findings than the diagnosis, so that answers neither echo nor copy them."""
    pool = [example for example in examples() if example["finding"] != diagnosis.finding]

    def rank(example: dict[str, str]) -> str:
        return hashlib.sha256(f"{diagnosis.question_id} {diagnosis.finding} {attempt} {example['title']}".encode()).hexdigest()

    return sorted(pool, key=rank)[:2]


@cache
def examples() -> list[dict[str, str]]:
    """Return the pool of worked examples."""
    return [json.loads(line) for line in (PROMPTS / "distil_examples.jsonl").read_text(encoding="utf-8").splitlines()]


def _show(example: dict[str, str]) -> str:
    answer = {key: example[key] for key in ("title", "description", "kind")}
    return f"{example['situation']}\n{json.dumps(answer)}"


@cache
def _template(name: str) -> Template:
    return Template((PROMPTS / name).read_text(encoding="utf-8").strip())
