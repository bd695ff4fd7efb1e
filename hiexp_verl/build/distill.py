"""Distillers: what turns diagnoses into E1, and clusters into E2 and E3."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import Protocol

from hiexp_verl.build.answers import Answers, CachedAnswers, FileAnswers, ServerAnswers
from hiexp_verl.build.describe import describe
from hiexp_verl.build.diagnose import Diagnosis
from hiexp_verl.build.draft import Draft, clean, fit
from hiexp_verl.build.rules import PROMPTS, RulesDistiller
from hiexp_verl.errors import HiExpError
from hiexp_verl.llm import MAX_MODEL_LEN, open_model
from hiexp_verl.scoring import normalise
from hiexp_verl.types import Entry, Level, Message

_MOST_CHILDREN = 12  # shown to a model for one summary; more do not fit a small context
_COPY = 0.8  # share of common words from which a description counts as copied from a worked example
_FENCE = re.compile(r"^```(?:json)?\s*|\s*```$")


class Distiller(Protocol):
    """Writes drafts; None stands for one that could not be written, which the build counts and leaves out."""

    @property
    def name(self) -> str: ...

    def prompts(self) -> dict[str, str]: ...

    def reflect(self, diagnoses: Sequence[Diagnosis]) -> list[Draft | None]: ...

    def summarise(self, groups: Sequence[Sequence[Entry]], level: Level) -> list[Draft | None]: ...


class PromptedDistiller:
    """A model writes the entries, from the prompts in hiexp_verl/prompts. What cannot be parsed is asked for once more.

    `dropped` counts what was left out after that, by reason.
    """

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self.name = answers.name
        self.dropped: Counter[str] = Counter()

    def prompts(self) -> dict[str, str]:
        """Return the prompt files that were used, by name."""
        names = ("distil_e1.txt", "distil_examples.jsonl", "summarise_e2.txt", "summarise_e3.txt")
        return {name: (PROMPTS / name).read_text(encoding="utf-8") for name in names}

    def reflect(self, diagnoses: Sequence[Diagnosis]) -> list[Draft | None]:
        """Write E1, one for each diagnosis.

        Raises:
            HiExpError: the source of answers fails.
        """

        def prompt(index: int, attempt: int) -> str:
            diagnosis = diagnoses[index]
            text = _template("distil_e1.txt")
            examples = "\n".join(_show(example) for example in examples_for(diagnosis, attempt))
            return text.substitute(examples=examples, question=diagnosis.question, diagnosis=describe(diagnosis))

        def accept(index: int, draft: Draft) -> Draft | str:
            diagnosis = diagnoses[index]
            if _is_copy(draft):
                return "copied a worked example"
            return clean(draft, diagnosis.masker, diagnosis.answers, diagnosis.question) or "nothing left after cleaning"

        return self._write(len(diagnoses), prompt, accept, "E1")

    def summarise(self, groups: Sequence[Sequence[Entry]], level: Level) -> list[Draft | None]:
        """Write one entry of the level for each group of entries of the level below.

        Raises:
            HiExpError: the source of answers fails.
        """

        def prompt(index: int, attempt: int) -> str:
            # The first are the most telling; a repetition shows them in another order.
            group = list(groups[index][:_MOST_CHILDREN])[:: -1 if attempt else 1]
            children = "\n".join(f"- ({entry.title}) {entry.description}" for entry in group)
            return _template(f"summarise_{level}.txt").substitute(children=children)

        def accept(index: int, draft: Draft) -> Draft | str:
            fitted = fit(draft)
            return fitted if len(fitted.title) > 3 and len(fitted.description) > 10 else "nothing left after cleaning"

        return self._write(len(groups), prompt, accept, level.upper())

    def _write(
        self, count: int, prompt: Callable[[int, int], str], accept: Callable[[int, Draft], Draft | str], progress: str
    ) -> list[Draft | None]:
        drafts: list[Draft | None] = [None] * count
        open_ones = list(range(count))
        reasons: dict[int, str] = {}
        for attempt in range(2 if self._answers.can_retry else 1):
            conversations: list[list[Message]] = [[{"role": "user", "content": prompt(i, attempt)}] for i in open_ones]
            texts = self._answers.answer(conversations, attempt, progress if not attempt else f"{progress} again") if conversations else []
            for i, text in zip(open_ones, texts, strict=True):
                parsed = parse_draft(text)
                if isinstance(parsed, Draft) and normalise(parsed.description) in normalise(parsed.title):
                    parsed = "description says no more than the title"
                result = accept(i, parsed) if isinstance(parsed, Draft) else parsed
                if isinstance(result, Draft):
                    drafts[i] = result
                else:
                    reasons[i] = result
            open_ones = [i for i in open_ones if drafts[i] is None]
        self.dropped.update(f"{progress} {reasons[i]}" for i in open_ones)
        return drafts


@contextmanager
def open_distiller(spec: str, cache: Path | None = None, resume: bool = False, max_model_len: int = MAX_MODEL_LEN) -> Iterator[Distiller]:
    """Open a distiller: `rules`, `vllm:DIR`, `openai:URL#MODEL` or `files:DIR`; answers of models are kept in `cache`.

    Raises:
        HiExpError: the specification is unknown, the server does not start or answer, the directory is missing.
    """
    if spec == "rules":
        yield RulesDistiller()
        return
    kind, _, place = spec.partition(":")
    if kind == "files":
        yield PromptedDistiller(FileAnswers(Path(place)))
        return
    if kind not in ("vllm", "openai") or not place:
        raise HiExpError(f"unknown distiller {spec!r}; use rules, vllm:DIR, openai:URL#MODEL or files:DIR")
    with open_model(place, max_model_len=max_model_len) as client:
        if cache is not None and not resume:
            cache.unlink(missing_ok=True)  # not before the server answers: answers may have been paid for
        answers: Answers = ServerAnswers(client, f"{kind}:{client.model}")
        yield PromptedDistiller(CachedAnswers(answers, cache) if cache is not None else answers)


def parse_draft(text: str) -> Draft | str:
    """Parse a model's answer strictly; return the draft, or why there is none."""
    try:
        row = json.loads(_FENCE.sub("", text.strip()))
    except (ValueError, RecursionError):
        return "not JSON"
    if not isinstance(row, dict) or set(row) != {"title", "description", "kind"}:
        return "wrong keys"
    if not all(isinstance(value, str) and value.strip() for value in row.values()):
        return "empty or no text"
    if row["kind"] not in ("guide", "pitfall"):
        return "unknown kind"
    return Draft(row["title"], row["description"], row["kind"])


def examples_for(diagnosis: Diagnosis, attempt: int) -> list[dict[str, str]]:
    """Draw two worked examples with other findings than the diagnosis, so that answers neither echo nor copy them."""
    pool = [example for example in _examples() if example["finding"] != diagnosis.finding]

    def rank(example: dict[str, str]) -> str:
        return hashlib.sha256(f"{diagnosis.question_id} {diagnosis.finding} {attempt} {example['title']}".encode()).hexdigest()

    return sorted(pool, key=rank)[:2]


def _show(example: dict[str, str]) -> str:
    answer = {key: example[key] for key in ("title", "description", "kind")}
    return f"{example['situation']}\n{json.dumps(answer)}"


def _is_copy(draft: Draft) -> bool:
    words = set(normalise(draft.description).split())
    for example in _examples():
        theirs = set(normalise(example["description"]).split())
        if len(words & theirs) >= _COPY * len(words | theirs):
            return True
    return False


def _template(name: str) -> Template:
    return Template((PROMPTS / name).read_text(encoding="utf-8").strip())


def _examples() -> list[dict[str, str]]:
    return [json.loads(line) for line in (PROMPTS / "distil_examples.jsonl").read_text(encoding="utf-8").splitlines()]
