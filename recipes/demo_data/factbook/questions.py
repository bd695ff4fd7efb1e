"""True 2- and 3-hop questions: a key that names a country without saying so, and a property of that country.

"What is the currency of the country whose highest point is Noshak?" needs the country first, then its currency.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

from hiexp_verl.types import Question
from recipes.demo_data.factbook.countries import Country, ascii_fold, same_name

Split = Literal["train", "val", "test"]
_TRAIN, _VAL = 70, 85  # per cent, cumulated; the rest is the test split

# Key -> (how the question refers to the country, the query that finds the country).
_KEYS: dict[str, tuple[str, str]] = {
    "capital": ("the country whose capital is {key}", "{key} capital of which country"),
    "highest point": ("the country whose highest point is {key}", "{key} highest point country"),
    "anthem": ('the country whose national anthem is "{key}"', "{key} national anthem country"),
    "only neighbour": ("the only country that borders {key}", "{key} shares a land border with"),
}
# Property -> (the ways to ask for it, the query that finds it).
_PROPERTIES: dict[str, tuple[tuple[str, ...], str]] = {
    "capital": (("What is the capital of {c}?", "Which city is the capital of {c}?"), "capital of {c}"),
    "highest point": (("What is the highest point of {c}?", "What is the name of the highest point in {c}?"), "highest point of {c}"),
    "currency": (("What is the currency of {c}?", "Which currency is used in {c}?"), "currency of {c}"),
    "independence": (("In what year did {c} become independent?", "When did {c} become independent?"), "{c} became independent"),
    "internet code": (("What is the internet country code of {c}?",), "internet country code of {c}"),
}


@dataclass(frozen=True)
class Hop:
    """A country that is named by something else: the text in the question, the queries and countries on the way."""

    kind: str
    start: Country
    phrase: str
    queries: tuple[str, ...]
    bridges: tuple[str, ...]
    country: Country


def questions_of(countries: Sequence[Country]) -> list[Question]:
    """Return every question, in a fixed shuffled order; meta holds family, split, hops (queries) and bridge (countries)."""
    splits = split_countries(countries)
    shared = {goal: shared_values(countries, goal) for goal in ("capital", "highest point", "currency")}
    questions = [
        _question(hop, goal, answers, splits[hop.country.code])
        for hop in _hops(countries)
        for goal, answers in hop.country.facts.items()
        if goal in _PROPERTIES and _is_fair(hop, goal, answers, shared)
    ]
    return sorted(questions, key=lambda question: _digest(question.id))


def split_countries(countries: Sequence[Country]) -> dict[str, Split]:
    """Assign each country code to a split; countries that a question can have in common stay together."""
    group = {country.code: country.code for country in countries}
    for left, right in _only_neighbours(countries):
        old, new = group[left.code], group[right.code]
        group = {code: new if root == old else root for code, root in group.items()}
    members = {root: min(code for code, other in group.items() if other == root) for root in set(group.values())}
    return {code: _split(members[root]) for code, root in group.items()}


def leaks(name: str, text: str) -> bool:
    """Tell whether the text gives the country's name away: a word of four letters or more begins like one of the name's."""
    stems = {word[:4] for word in _words(name) if len(word) >= 4}
    return any(word[:4] in stems for word in _words(text))


def _hops(countries: Sequence[Country]) -> Iterator[Hop]:
    """Yield every way to name a country that is unique and does not give it away."""
    direct = list(_direct_hops(countries))
    yield from direct
    for country, neighbour in _only_neighbours(countries):
        phrase, query = _KEYS["only neighbour"]
        step = query.format(key=country.name)
        yield Hop("only neighbour", country, phrase.format(key=country.the_name), (step,), (neighbour.name,), neighbour)
        for hop in direct:
            if hop.country is country:
                bridges = (country.name, neighbour.name)
                yield Hop(f"{hop.kind} > only neighbour", country, phrase.format(key=hop.phrase), (*hop.queries, step), bridges, neighbour)


def _direct_hops(countries: Sequence[Country]) -> Iterator[Hop]:
    for kind in ("capital", "highest point", "anthem"):
        shared = shared_values(countries, kind)
        phrase, query = _KEYS[kind]
        for country in countries:
            key = country.facts.get(kind, ("",))[0]
            if country.sovereign and key and key not in shared and not leaks(country.name, key):
                yield Hop(kind, country, phrase.format(key=key), (query.format(key=key),), (country.name,), country)


def _only_neighbours(countries: Sequence[Country]) -> Iterator[tuple[Country, Country]]:
    """Yield (country, its only neighbour) for sovereign pairs whose names do not give each other away."""
    for country in countries:
        if country.sovereign and len(country.neighbours) == 1:
            for other in countries:
                if other.sovereign and same_name(other.name, country.neighbours[0]) and not leaks(other.name, country.name):
                    yield country, other


def _is_fair(hop: Hop, goal: str, answers: tuple[str, ...], shared: Mapping[str, set[str]]) -> bool:
    """Refuse what the question or the country's name already says, and answers that many countries share."""
    if goal == hop.kind or answers[0] in shared.get(goal, ()):
        return False
    if (hop.kind, goal) == ("anthem", "independence"):
        return False  # anthems were adopted in that year: one search would do
    return goal in ("independence", "internet code", "currency") or not leaks(f"{hop.country.name} {hop.phrase}", answers[0])


def _question(hop: Hop, goal: str, answers: tuple[str, ...], split: Split) -> Question:
    texts, query = _PROPERTIES[goal]
    family = f"{hop.kind} > {goal}"
    identity = "-".join([hop.start.code, *re.findall(r"\w+", family)])
    text = texts[int(_digest(identity), 16) % len(texts)].format(c=hop.phrase)
    hops = [*hop.queries, query.format(c=hop.country.name)]
    meta = {"family": family, "split": split, "hops": hops, "bridge": list(hop.bridges), "goal": goal}
    return Question(identity, text, answers, meta)


def shared_values(countries: Sequence[Country], kind: str) -> set[str]:
    """Return the values that more than one country has (the euro): no key, guessable, and in every split at once.

    A mountain on a border is spelled differently on its two sides: there a rare word in common is enough.
    """
    values = [(country.facts[kind][0], " ".join(country.facts[kind])) for country in countries if kind in country.facts]
    uses = Counter(ascii_fold(value).casefold() for value, _ in values)
    shared = {value for value, _ in values if uses[ascii_fold(value).casefold()] > 1}
    if kind == "highest point":
        words = Counter(word for _, text in values for word in set(_words(text)) if len(word) >= 5)
        shared |= {value for value, text in values if any(words[word] == 2 for word in _words(text))}
    return shared


def _split(code: str) -> Split:
    draw = int(_digest(f"split {code}"), 16) % 100
    return "train" if draw < _TRAIN else "val" if draw < _VAL else "test"


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", ascii_fold(text).casefold())


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
