"""The prompts of a distiller that asks a model, filled from the texts of a domain, and the diagnosis in words.

Names are masked before the model reads them: small models repeat the names they see and describe one case instead of
advising for all (benchmarks/LOG.md). What to do instead is computed; the model fits it to the kind of question.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from functools import cache
from string import Template

from hiexp_verl.distil.draft import Draft
from hiexp_verl.distil.rules import advice_for, advice_over
from hiexp_verl.domains.diagnosis import Diagnosis, Masking
from hiexp_verl.domains.domain import Domain
from hiexp_verl.masking import with_article
from hiexp_verl.types import Entry, Level

PROMPTS = ("distil_e1.txt", "distil_examples.jsonl", "summarise_e2.txt", "summarise_e3.txt", "confirm.txt")  # of `Domain.texts`
_MOST_CHILDREN = 12  # shown to a model for one summary; more do not fit a small context


def prompt_files(domain: Domain) -> dict[str, str]:
    """Return the prompt files, by name."""
    return {name: domain.texts[name] for name in PROMPTS}


def reflection_prompt(diagnosis: Diagnosis, attempt: int, domain: Domain) -> str:
    """Return the prompt for an E1; a second attempt shows other examples."""
    shown = [
        f"{example['situation']}\n{json.dumps({key: example[key] for key in ('title', 'description', 'kind')})}"
        for example in examples_for(diagnosis, attempt, domain)
    ]
    return _filled(domain, "distil_e1.txt", examples="\n".join(shown), diagnosis=describe(diagnosis, domain))


def summary_prompt(group: Sequence[Entry], attempt: int, level: Level, domain: Domain) -> str:
    """Return the prompt for the entry above a group, in the order of the group; a second attempt reverses it."""
    shown = list(group[:_MOST_CHILDREN])[:: -1 if attempt else 1]
    children = "\n".join(f"- ({entry.title}) {entry.description}" for entry in shown)
    return _filled(domain, f"summarise_{level}.txt", children=children, known=advice_over(group, level, domain).description)


def confirmation_prompt(draft: Draft, member: Entry, domain: Domain) -> str:
    """Return the prompt that asks whether a summary holds for one of its members."""
    texts = {"title": draft.title, "description": draft.description}
    return _filled(domain, "confirm.txt", **texts, member_title=member.title, member_description=member.description)


def edit_prompt(entry: Entry, near: Sequence[Entry], domain: Domain) -> str:
    """Return the prompt that asks what becomes of a new entry beside those near it, which have local numbers."""
    listed = "\n".join(f"{number}. ({each.title}) {each.description}" for number, each in enumerate(near, start=1))
    return _filled(domain, "edit_e1.txt", title=entry.title, description=entry.description, near=listed)


def revision_prompt(entry: Entry, failures: Sequence[Diagnosis], domain: Domain) -> str:
    """Return the prompt that asks for an E1 anew, beside what rollouts did that were shown it and failed."""
    described = "\n\n".join(describe(failure, domain, 200) for failure in failures)
    return _filled(domain, "revise_e1.txt", title=entry.title, description=entry.description, failures=described)


def examples_for(diagnosis: Diagnosis, attempt: int, domain: Domain) -> list[dict[str, str]]:
    """Draw two worked examples with other findings than the diagnosis, so that answers neither echo nor copy them."""
    pool = [example for example in examples(domain.texts["distil_examples.jsonl"]) if example["finding"] != diagnosis.finding]

    def rank(example: dict[str, str]) -> str:
        return hashlib.sha256(f"{diagnosis.question_id} {diagnosis.finding} {attempt} {example['title']}".encode()).hexdigest()

    return sorted(pool, key=rank)[:2]


@cache
def examples(text: str) -> list[dict[str, str]]:
    """Return the worked examples of a file."""
    return [json.loads(line) for line in text.splitlines()]


def _filled(domain: Domain, name: str, **values: str) -> str:
    return Template(domain.texts[name].strip()).substitute(values)


_MOST_CHARS = 160  # per query
_SEPARATOR = " :: "  # ends in what starts a sentence, so that a capital after it is not yet a name
_PLACEHOLDER = re.compile(r"(?:\b(?:an?|the) )?\b([XYZW])\b")
_ORDINALS = ("the first one", "the second one", "the third one", "the fourth one")


def describe(d: Diagnosis, domain: Domain, max_tokens: int = 400) -> str:
    """Return the diagnosis as some lines of text, without names and answers, in about `max_tokens` tokens (4 characters each).

    The middle actions are left out when room is short; the kind of question, what went wrong and what to do instead stay.
    """
    *most, least = ("\n".join(_lines(d, domain, queries)) for queries in (6, 3, 2, 1))
    return next((text for text in most if len(text) <= 4 * max_tokens), least)


def _lines(d: Diagnosis, domain: Domain, most: int) -> list[str]:
    failed = d.failed.queries
    succeeded = d.succeeded.queries if d.succeeded is not None else ()
    kind, *queries = without_names(d.masker, [domain.redact(text, d.answers, d.question) for text in (d.question, *failed, *succeeded)])
    lines = [f"Kind of question: {kind}", f"The failed attempt made {_numbered(queries[: len(failed)], most, domain)}."]
    if d.succeeded is not None:
        lines.append(f"The successful attempt made {_numbered(queries[len(failed) :], most, domain)}.")
        if d.part_at:
            lines.append(f"The first {d.part_at} {domain.action[1]} were alike.")
    lines.append(f"What went wrong: {domain.meanings[d.finding]}.")
    if d.also:
        lines.append("Also: " + "; ".join(domain.meanings[finding] for finding in d.also[:2]) + ".")
    if d.bridge_kind:
        lines.append(f"The thing to be found first is {with_article(d.bridge_kind)}.")
    lines.append(f"What to do instead: {advice_for(d, domain).description}")
    return lines


def without_names(masker: Masking, texts: Sequence[str]) -> list[str]:
    """Return the texts without names, the same words for a name in all: "a film", "another film", "the first one".

    Letters for names of unknown kind ("X and Y") would come back in the advice, where they mean nothing.
    """
    masked = masker.mask(_SEPARATOR.join(text.replace("::", ":") for text in texts))
    letters = sorted(set(_PLACEHOLDER.findall(masked)), key="XYZW".index)
    names = dict(zip(letters, _ORDINALS if len(letters) > 1 else ("the named one",), strict=False))
    parts = [_PLACEHOLDER.sub(lambda found: names[found[1]], part).strip() for part in masked.split("::")]
    return [part[: part.rfind(" ", 0, _MOST_CHARS)] if len(part) > _MOST_CHARS else part for part in parts]


def _numbered(queries: Sequence[str], most: int, domain: Domain) -> str:
    """Number the queries; of more than `most`, the first ones and the last."""
    if not queries:
        return f"no {domain.action[0]}"
    numbered = [f"{number}) {query}" for number, query in enumerate(queries, start=1)]
    shown = numbered if len(numbered) <= most else [*numbered[: most - 1], *(["..."] if most > 1 else []), numbered[-1]]
    return f"{len(queries)} {domain.action[len(queries) > 1]}: {'; '.join(shown)}"
