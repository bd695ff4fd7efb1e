"""Distillers: what turns diagnoses into E1, and clusters into E2 and E3."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from hiexp_verl.distil.draft import Draft
from hiexp_verl.distil.edits import EDIT_SCHEMA, Edit, parsed_edit
from hiexp_verl.distil.prompts import (
    PROMPTS,
    confirmation_prompt,
    edit_prompt,
    examples,
    prompt_files,
    reflection_prompt,
    revision_prompt,
    summary_prompt,
)
from hiexp_verl.distil.replies import ATTEMPTS, YES_OR_NO_SCHEMA, FileReplies, ModelReplies, OtherDraft, Replies, StoredReplies, Usage
from hiexp_verl.distil.rules import TEMPLATES, RulesDistiller
from hiexp_verl.distil.validate import admit, admit_summary, repeats, tells
from hiexp_verl.domains.diagnosis import Diagnosis
from hiexp_verl.domains.domain import Domain
from hiexp_verl.domains.search import SEARCH
from hiexp_verl.errors import HiExpError
from hiexp_verl.io.files import sha256_of
from hiexp_verl.models.chat import MAX_MODEL_LEN, open_model
from hiexp_verl.models.vllm_offline import offline_vllm
from hiexp_verl.models.vllm_process import is_cpu_build
from hiexp_verl.scoring import normalise
from hiexp_verl.text import load_json
from hiexp_verl.types import KINDS, MAX_DESCRIPTION_CHARS, Entry, Level, Message

_COPY = 0.8  # share of common words from which a description counts as copied from a worked example
_MOST_CHARS = 10_000  # of an answer; no draft needs a tenth of it, and cleaning takes time quadratic in it
Subject = TypeVar("Subject")
_FENCE = re.compile(r"^```(?:json)?\s*|\s*```$")


class Distiller(Protocol):
    """Writes drafts, None where it could not write one; the build counts these and leaves them out."""

    @property
    def name(self) -> str: ...

    @property
    def domain(self) -> Domain: ...  # of the diagnoses and entries that it reads

    @property
    def usage(self) -> Usage | None: ...  # of the models that it asked; None where it asks none

    @property
    def dropped(self) -> Counter[str]: ...  # drafts that were refused, by level and reason (`counts.TEXTS`)

    def prompts(self) -> dict[str, str]: ...

    def reflect(self, diagnoses: Sequence[Diagnosis]) -> list[Draft | None]: ...

    def summarise(self, groups: Sequence[Sequence[Entry]], level: Level) -> list[Draft | None]: ...

    def confirm(self, pairs: Sequence[tuple[Draft, Entry]]) -> list[bool]: ...

    def edit(self, pairs: Sequence[tuple[Entry, Sequence[Entry]]]) -> list[Edit]: ...

    def revise(self, pairs: Sequence[tuple[Entry, Sequence[Diagnosis]]]) -> list[Draft | None]: ...

    def again(self, draft: int) -> "Distiller": ...  # its n-th other draft; 0: as it is


class PromptedDistiller:
    """A model writes the entries, from the prompts in hiexp_verl/prompts; an answer that is refused is asked for once more.

    What is refused again counts as dropped.

    Raises:
        HiExpError: each method, when the source of replies fails.
    """

    def __init__(self, replies: Replies, domain: Domain = SEARCH) -> None:
        self._replies = replies
        self.domain = domain
        self.name = replies.name
        self.dropped: Counter[str] = Counter()

    @property
    def usage(self) -> Usage:
        """What the answers took so far."""
        return self._replies.usage

    def prompts(self) -> dict[str, str]:
        """Return the prompt files that were used, by name."""
        return prompt_files(self.domain)

    def reflect(self, diagnoses: Sequence[Diagnosis]) -> list[Draft | None]:
        """Write E1, one for each diagnosis."""
        return self._write(diagnoses, partial(reflection_prompt, domain=self.domain), partial(_admit_case, domain=self.domain), "e1")

    def summarise(self, groups: Sequence[Sequence[Entry]], level: Level) -> list[Draft | None]:
        """Write one entry of the level for each group of entries of the level below."""
        how: dict[str, Any] = {"level": level, "domain": self.domain}
        return self._write(groups, partial(summary_prompt, **how), partial(admit_summary, **how), level)

    def confirm(self, pairs: Sequence[tuple[Draft, Entry]]) -> list[bool]:
        """Return for each summary and member whether the summary holds for it; an answer that cannot be parsed is a yes, and counted."""
        conversations: list[list[Message]] = [[{"role": "user", "content": confirmation_prompt(*pair, self.domain)}] for pair in pairs]
        rows = [_json(text) for text in self._replies.reply(conversations, 0, "confirm", YES_OR_NO_SCHEMA)] if pairs else []
        holds = [row.get("holds") if isinstance(row, dict) else None for row in rows]
        self.dropped["unclear_confirmation"] += sum(each not in ("yes", "no") for each in holds)
        return [each != "no" for each in holds]

    def edit(self, pairs: Sequence[tuple[Entry, Sequence[Entry]]]) -> list[Edit]:
        """Return what becomes of each new entry beside those near it; an answer that cannot be parsed is NONE, and counted."""
        conversations: list[list[Message]] = [[{"role": "user", "content": edit_prompt(*pair, self.domain)}] for pair in pairs]
        texts = self._replies.reply(conversations, 0, "edits", EDIT_SCHEMA) if pairs else []
        edits = [parsed_edit(_json(text), near) for text, (_, near) in zip(texts, pairs, strict=True)]
        self.dropped["unclear_edit"] += sum(each is None for each in edits)
        return [each or Edit("NONE") for each in edits]

    def revise(self, pairs: Sequence[tuple[Entry, Sequence[Diagnosis]]]) -> list[Draft | None]:
        """Write E1 anew, each beside what rollouts did that were shown it and failed; None where nothing admissible is written."""
        return self._write(pairs, lambda pair, _: revision_prompt(*pair, self.domain), partial(_admit_revision, domain=self.domain), "e1")

    def again(self, draft: int) -> "PromptedDistiller":
        """Return a distiller that draws other answers of the same model, counted with these; of 0 itself."""
        if not draft:
            return self
        other = PromptedDistiller(OtherDraft(self._replies, draft), self.domain)
        other.dropped = self.dropped
        return other

    def _write(
        self,
        subjects: Sequence[Subject],
        prompt: Callable[[Subject, int], str],
        admit: Callable[[Draft, Subject], Draft | str],
        level: Level,
    ) -> list[Draft | None]:
        drafts: list[Draft | None] = [None] * len(subjects)
        reasons: dict[int, str] = dict.fromkeys(range(len(subjects)), "")  # of the drafts that are not written yet
        for attempt in range(ATTEMPTS if self._replies.can_retry else 1):
            conversations: list[list[Message]] = [[{"role": "user", "content": prompt(subjects[i], attempt)}] for i in reasons]
            texts = self._replies.reply(conversations, attempt, level.upper() + " again" * attempt) if conversations else []
            for i, text in zip(list(reasons), texts, strict=True):
                parsed = parse_draft(text, self.domain)
                result = admit(parsed, subjects[i]) if isinstance(parsed, Draft) else parsed
                if isinstance(result, Draft):
                    drafts[i] = result
                    del reasons[i]
                else:
                    reasons[i] = result
        self.dropped.update(f"{level}.{reason}" for reason in reasons.values())
        return drafts


def _admit_case(draft: Draft, diagnosis: Diagnosis, domain: Domain) -> Draft | str:
    """Return the draft of an E1, cleaned, or why it is not admitted; what `clean` would shorten or redact is not."""
    if len(draft.description) > MAX_DESCRIPTION_CHARS:
        return "too_long"
    # With the answer redacted it reads "search for the regime's the answer".
    if tells(draft.description, diagnosis.question, diagnosis.answers, domain.redact):
        return "tells_answer"
    return admit(draft, diagnosis, domain)


def _admit_revision(draft: Draft, pair: tuple[Entry, Sequence[Diagnosis]], domain: Domain) -> Draft | str:
    """Return the draft, cleaned of what each of the failed questions names, or why it is not admitted."""
    for diagnosis in pair[1]:
        result = _admit_case(draft, diagnosis, domain)
        if isinstance(result, str):
            return result
        draft = result
    return draft


@contextmanager
def open_distiller(
    spec: str,
    cache: Path | None = None,
    resume: bool = False,
    max_model_len: int = MAX_MODEL_LEN,
    concurrency: int | None = None,
    domain: Domain = SEARCH,
) -> Iterator[Distiller]:
    """Yield the distiller of a specification (`split_spec`); answers of a model are kept in the file `cache`.

    Raises:
        HiExpError: the specification is unknown, the domain lacks a text, the model does not start or answer, the directory is missing.
    """
    kind, place = split_spec(spec)
    needed = TEMPLATES if kind == "rules" else (*TEMPLATES, *PROMPTS)
    if missing := [name for name in needed if name not in domain.texts]:
        raise HiExpError(f"the domain {domain.name} has no {', '.join(missing)} among its texts, which --distiller {spec} needs; add them")
    if kind == "rules":
        yield RulesDistiller(domain)
    elif kind == "files":
        yield PromptedDistiller(FileReplies(Path(place)), domain)
    else:
        if kind == "vllm-local":
            opened = offline_vllm(Path(place), max_model_len)
        else:
            opened = open_model(place, concurrency or concurrency_for(kind), max_model_len)
        with opened as model:
            name = f"{kind}:{model.model}"
            yield PromptedDistiller(ModelReplies(model, name, StoredReplies(cache, _identity(name, place), resume)), domain)


def split_spec(spec: str) -> tuple[str, str]:
    """Return the kind of a distiller and its place, which is empty for `rules` only.

    Raises:
        HiExpError: there is no such kind, or the place is missing.
    """
    kind, _, place = spec.partition(":")
    if spec != "rules" and (kind not in ("vllm", "vllm-local", "openai", "files") or not place):
        raise HiExpError(f"unknown distiller {spec!r}; use rules, vllm:DIR, vllm-local:DIR, openai:URL#MODEL or files:DIR")
    return kind, place


def concurrency_for(kind: str) -> int:
    """Return the number of requests in flight: what fills the batch of our own server, fewer for a server of others."""
    if kind == "openai":
        return 16
    return 32 if is_cpu_build() else 256


def _identity(name: str, place: str) -> str:
    """Return the name with a hash of the weights: every checkpoint of a run may be in a folder `huggingface`."""
    weights = sorted(Path(place).glob("*.safetensors")) if Path(place).is_dir() else []
    return f"{name} {sha256_of(*weights)[:16]}" if weights else name


def parse_draft(text: str, domain: Domain) -> Draft | str:
    """Return the draft in a model's answer, parsed strictly, or why it is refused."""
    if len(text) > _MOST_CHARS:
        return "too_long"
    row = _json(text)
    if row is None:
        return "not_json"
    if not isinstance(row, dict) or set(row) != {"title", "description", "kind"}:
        return "wrong_keys"
    if not all(isinstance(value, str) and value.strip() for value in row.values()):
        return "no_text"
    if row["kind"] not in KINDS:
        return "unknown_kind"
    draft = Draft(**row)
    if normalise(draft.description) in normalise(draft.title):
        return "repeats_title"
    shown = examples(domain.texts["distil_examples.jsonl"])
    return "copied_example" if any(repeats(draft.description, example["description"], _COPY) for example in shown) else draft


def _json(text: str) -> Any:
    """Return what a model's answer holds, None if it is not JSON."""
    return load_json(_FENCE.sub("", text.strip()))
