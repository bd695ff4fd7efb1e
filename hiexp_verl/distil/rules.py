"""The distiller without a model: templates filled from the computed diagnosis (rules_*.jsonl of `Domain.texts`).

A baseline, a control, and the choice where the policy is too small to reflect.
"""

import json
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

from hiexp_verl.distil.draft import Draft, fit, most_common
from hiexp_verl.distil.edits import Edit
from hiexp_verl.domains.diagnosis import Diagnosis
from hiexp_verl.domains.domain import Domain
from hiexp_verl.domains.search import SEARCH
from hiexp_verl.errors import HiExpError
from hiexp_verl.types import MAX_TITLE_CHARS, Entry, Kind, Level

TEMPLATES = ("rules_e1.jsonl", "rules_e2.jsonl", "rules_e3.jsonl")  # of `Domain.texts`
# What is asked for, as a sentence names it, where the noun does not fit.
_ASKED = {"answer": "what is asked", "yes or no": "the verdict"}


class RulesDistiller:
    """Writes entries by template: E1 from the finding, E2 from what a cluster shares, E3 from what its patterns share."""

    name = "rules"
    usage = None
    domain = SEARCH  # of a subclass that is made in another way

    def __init__(self, domain: Domain = SEARCH) -> None:
        self.domain = domain

    @property
    def dropped(self) -> Counter[str]:
        """Nothing: no template is refused."""
        return Counter()

    def prompts(self) -> dict[str, str]:
        """Return the template files that were used, by name."""
        return {name: self.domain.texts[name] for name in TEMPLATES}

    def reflect(self, diagnoses: Sequence[Diagnosis]) -> list[Draft | None]:
        """Return one draft per diagnosis."""
        return [advice_for(diagnosis, self.domain) for diagnosis in diagnoses]

    def summarise(self, groups: Sequence[Sequence[Entry]], level: Level) -> list[Draft | None]:
        """Return one draft per group of entries."""
        return [fit(advice_over(group, level, self.domain)) for group in groups]

    def confirm(self, pairs: Sequence[tuple[Draft, Entry]]) -> list[bool]:
        """Return yes for all: a template filled from its members holds for them."""
        return [True] * len(pairs)

    def edit(self, pairs: Sequence[tuple[Entry, Sequence[Entry]]]) -> list[Edit]:
        """Return ADD for all: what a template writes is new, or a near-duplicate, which a merge unites."""
        return [Edit("ADD")] * len(pairs)

    def revise(self, pairs: Sequence[tuple[Entry, Sequence[Diagnosis]]]) -> list[Draft | None]:
        """Return nothing: a template would be filled with the same words again."""
        return [None] * len(pairs)

    def again(self, draft: int) -> "RulesDistiller":
        """Return itself: templates have no other draft."""
        return self


def advice_for(d: Diagnosis, domain: Domain) -> Draft:
    """Return the advice of the templates for a diagnosis."""
    wanted = d.succeeded.prediction if d.succeeded else d.answers[0]
    longer = len(d.failed.prediction.split()) - len(wanted.split())
    facts = {"form": "longer" if longer > 0 else "shorter" if longer < 0 else "other", "bridge_kind": bool(d.bridge_kind)}
    for rule in _rules(domain.texts["rules_e1.jsonl"]):
        if (
            rule["finding"] == d.finding
            and d.shape in rule.get("shape", [d.shape])
            and ("also" not in rule or set(rule["also"]) & set(d.also))
            and all(rule[name] == fact for name, fact in facts.items() if name in rule)
        ):
            asked = _ASKED.get(d.asked_for, f"the {d.asked_for}")
            text = rule["text"].format(asked=asked, bridge=d.bridge_kind)
            return Draft(d.kind_of_question, text, rule["kind"], tuple(rule.get("when", ())))
    raise HiExpError(f"rules_e1.jsonl of the domain {domain.name} has no rule for the finding {d.finding}; add one")


def advice_over(group: Sequence[Entry], level: Level, domain: Domain) -> Draft:
    """Return the advice of the templates for the main shape of a group and its two main findings."""
    shape, *_ = most_common(shape for entry in group for shape in entry.shapes) or ["direct"]
    findings = most_common(finding for entry in group for finding in entry.findings)
    rules = _rules(domain.texts[f"rules_{level}.jsonl"])
    main = next((rule for rule in rules if rule.get("shape") == shape), None)
    if main is None:
        raise HiExpError(f"rules_{level}.jsonl of the domain {domain.name} has no rule for the shape {shape}; add one")
    advice = [rule["text"] for finding in findings[:2] for rule in rules if rule.get("finding") == finding]
    room = MAX_TITLE_CHARS - len(main["title"].format(example=""))
    alike = [entry for entry in group if shape in entry.shapes] or group
    title = main["title"].format(example=_most_typical([entry for entry in alike if len(entry.title) <= room] or alike))
    asked, *_ = most_common(asked for entry in group for asked in entry.asked_for) or ["answer"]
    shared = asked not in _ASKED and 2 * sum(asked in entry.asked_for for entry in group) > len(group)
    text = main["text"].format(asked=f"the {asked}" if shared else "the fact that is asked for")
    kinds: list[Kind] = [entry.kind for entry in group]
    return Draft(title, " ".join([text, *advice]), most_common(kinds)[0])


def _most_typical(group: Sequence[Entry]) -> str:
    """Return the title that shares most words with the others."""
    words = [frozenset(entry.title.lower().split()) for entry in group]
    shared = [sum(len(mine & other) / len(mine | other) for other in words) for mine in words]
    return group[shared.index(max(shared))].title


@cache
def _rules(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.strip()]
