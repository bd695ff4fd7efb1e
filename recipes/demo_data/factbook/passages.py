"""Passages about the countries: one topic each, 20 to 60 words of text, so that no passage answers two hops."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hiexp_verl.types import Passage
from recipes.demo_data.factbook.countries import Country

MAX_WORDS = 55
_MAX_PARTS = 4  # of one topic
_LATEST = re.compile(r" \d{4}$")

# Topic -> (path of headings, lead). "{c}" is the country. The first word of the text keeps its case.
_TOPICS: dict[str, tuple[tuple[str, ...], str]] = {
    "History of {c}": (("Introduction", "Background"), ""),
    "Location of {c}": (("Geography", "Location"), "{c} lies in"),
    "Climate of {c}": (("Geography", "Climate"), "The climate of {c}:"),
    "Terrain of {c}": (("Geography", "Terrain"), "The terrain of {c}:"),
    "Natural resources of {c}": (("Geography", "Natural resources"), "Natural resources of {c}:"),
    "Natural hazards in {c}": (("Geography", "Natural hazards"), "Natural hazards in {c}:"),
    "Geography note on {c}": (("Geography", "Geography - note"), "About the geography of {c}:"),
    "Rivers of {c}": (("Geography", "Major rivers (by length in km)"), "Major rivers of {c}:"),
    "Settlement in {c}": (("People and Society", "Population distribution"), "Where people live in {c}:"),
    "Ethnic groups of {c}": (("People and Society", "Ethnic groups"), "Ethnic groups of {c}:"),
    "Languages of {c}": (("People and Society", "Languages", "Languages"), "Languages spoken in {c}:"),
    "Religions of {c}": (("People and Society", "Religions"), "Religions of {c}:"),
    "Name of {c}": (("Government", "Country name", "etymology"), "Where the name of {c} comes from:"),
    "Government of {c}": (("Government", "Government type"), "{c} is governed as:"),
    "Administrative divisions of {c}": (("Government", "Administrative divisions"), "Administrative divisions of {c}:"),
    "Legal system of {c}": (("Government", "Legal system"), "The legal system of {c}:"),
    "Constitution of {c}": (("Government", "Constitution", "history"), "The constitution of {c}:"),
    "Flag of {c}": (("Government", "Flag"), "The flag of {c}."),
    "National symbols of {c}": (("Government", "National symbol(s)"), "National symbols of {c}:"),
    "World heritage in {c}": (("Government", "National heritage", "selected World Heritage Site locales"), "World heritage sites in {c}:"),
    "Economy of {c}": (("Economy", "Economic overview"), "The economy of {c}:"),
    "Agriculture in {c}": (("Economy", "Agricultural products"), "Agricultural products of {c}:"),
    "Industries of {c}": (("Economy", "Industries"), "Industries of {c}:"),
    "Exports of {c}": (("Economy", "Exports - commodities"), "The main exports of {c}:"),
    "Imports of {c}": (("Economy", "Imports - commodities"), "The main imports of {c}:"),
    "Trade partners of {c}": (("Economy", "Exports - partners"), "Most exports of {c} go to:"),
    "Environment of {c}": (("Environment", "Environmental issues"), "Environmental issues in {c}:"),
    "Media in {c}": (("Communications", "Broadcast media"), "Broadcast media in {c}:"),
    "Armed forces of {c}": (("Military and Security", "Military and security forces"), "The armed forces of {c}:"),
}


def passages_of(country: Country) -> list[Passage]:
    """Return the passages about a country; ids are "<code>-<number>"."""
    pairs = [*_key_passages(country), *_topic_passages(country)]
    return [Passage(f"{country.code}-{number:02d}", title, text) for number, (title, text) in enumerate(pairs)]


def split_text(text: str, max_words: int = MAX_WORDS, max_parts: int = _MAX_PARTS) -> list[str]:
    """Split at sentence ends and semicolons into parts of at most max_words; a longer sentence is cut."""
    pieces = re.split(r"(?<=[.;!?])\s+(?=\S)", text)
    parts: list[list[str]] = [[]]
    for piece in pieces:
        words = piece.split()[:max_words]
        if parts[-1] and len(parts[-1]) + len(words) > max_words:
            parts.append([])
        parts[-1] += words
    return [" ".join(part).rstrip(" ;,") for part in parts[:max_parts] if part]


def _topic_passages(country: Country) -> Iterator[tuple[str, str]]:
    for title, (path, lead) in _TOPICS.items():
        text = country.text(*path)
        if not text or text.casefold() in ("none", "na"):
            continue
        title, lead = title.format(c=country.the_name), lead.format(c=country.the_name)
        for part in split_text(text, MAX_WORDS - len(lead.split())):
            yield title, _sentence(f"{lead} {_without_label(part)}".strip())


def _key_passages(country: Country) -> Iterator[tuple[str, str]]:
    """Yield the passages that the questions are about, the fact in the first sentence."""
    for title, facts in (
        ("Capital of {c}", _capital(country)),
        ("Elevation of {c}", _elevation(country)),
        ("Currency of {c}", _currency(country)),
        ("Independence of {c}", _independence(country)),
        ("National anthem of {c}", _anthem(country)),
        ("Borders of {c}", _borders(country)),
        ("Communications in {c}", _communications(country)),
        ("Population of {c}", _population(country)),
        ("Area of {c}", _area(country)),
    ):
        sentences = [_sentence(fact) for fact in facts if fact]
        if sentences:
            yield title.format(c=country.the_name), split_text(" ".join(sentences))[0]


def _capital(country: Country) -> Sequence[str]:
    text = country.text("Government", "Capital", "name")
    if not text:
        return ()
    where = country.text("Government", "Capital", "geographic coordinates")
    origin = country.text("Government", "Capital", "etymology")
    time = country.text("Government", "Capital", "time difference").split(" (")[0]
    plain = country.facts.get("capital", (text,))[0]
    first = f"{text} is the capital of {country.the_name}" if "capital" in country.facts else f"The capital of {country.the_name}: {text}"
    return (
        first,
        f"{plain} lies at {where}" if where and "capital" in country.facts else "",
        f"Its time zone is {time}" if time else "",
        f"About its name: {origin}" if origin else "",
    )


def _elevation(country: Country) -> Sequence[str]:
    highest, lowest, mean = (country.text("Geography", "Elevation", kind) for kind in ("highest point", "lowest point", "mean elevation"))
    return (
        f"The highest point of {country.the_name} is {highest}" if highest else "",
        f"The lowest point of {country.the_name} is {lowest}" if lowest else "",
        f"The mean elevation is {mean}" if mean else "",
    )


def _currency(country: Country) -> Sequence[str]:
    names = country.facts.get("currency", ())
    if not names:
        return ()
    rate, _, year = _latest(country, "Economy", "Exchange rates").partition(" (")
    return (
        f"The currency of {country.the_name}: {names[0]}",
        f"Prices and wages in {country.the_name} are paid in {names[0]}",
        f"One US dollar bought {rate} {names[0]} ({year}" if year else "",
    )


def _independence(country: Country) -> Sequence[str]:
    text = country.text("Government", "Independence")
    if not country.sovereign:
        return ()
    holiday = country.text("Government", "National holiday")
    fact = country.facts.get("independence")
    first = f"{country.the_name} became independent on {text}" if fact else f"Independence of {country.the_name}: {text}"
    return (first, f"The national holiday is {holiday}" if holiday else "")


def _anthem(country: Country) -> Sequence[str]:
    title = country.text("Government", "National anthem(s)", "title")
    authors = country.text("Government", "National anthem(s)", "lyrics/music")
    history = country.text("Government", "National anthem(s)", "history")
    if not title:
        return ()
    return (
        f"The national anthem of {country.the_name} is {title}",
        f"Lyrics and music are by {authors.replace('/', ' and ')}" if authors and "unknown" not in authors else "",
        f"It was {history}" if history.startswith("adopted") else "",
    )


def _borders(country: Country) -> Sequence[str]:
    neighbours = country.text("Geography", "Land boundaries", "border countries")
    total = country.text("Geography", "Land boundaries", "total")
    coast = country.text("Geography", "Coastline")
    if len(country.neighbours) == 1:
        first = f"The only country that {country.the_name} shares a land border with is {neighbours}"
    else:
        first = f"{country.the_name} shares land borders with {neighbours}" if neighbours else f"{country.the_name} has no land borders"
    return (
        first,
        f"Its land borders are {total} long in all" if neighbours and total else "",
        f"Its coastline measures {coast}" if coast else "",
    )


def _communications(country: Country) -> Sequence[str]:
    code = country.text("Communications", "Internet country code")
    users = country.text("Communications", "Internet users", "percent of population")
    mobile = country.text("Communications", "Telephones - mobile cellular", "total subscriptions")
    return (
        f"The internet country code of {country.the_name} is {code}" if code else "",
        f"The share of the population that uses the internet is {users}" if users else "",
        f"Mobile telephone subscriptions number {mobile}" if mobile else "",
    )


def _population(country: Country) -> Sequence[str]:
    total = country.text("People and Society", "Population", "total")
    growth = country.text("People and Society", "Population growth rate")
    age = country.text("People and Society", "Median age", "total")
    urban = country.text("People and Society", "Urbanization", "urban population")
    return (
        f"The population of {country.the_name} is {total}" if total else "",
        f"It grows by {growth} a year" if growth else "",
        f"The median age is {age}" if age else "",
        f"The urban population is {urban}" if urban else "",
    )


def _area(country: Country) -> Sequence[str]:
    total = country.text("Geography", "Area", "total") or country.text("Geography", "Area", "total ")
    like = country.text("Geography", "Area - comparative")
    return (f"The area of {country.the_name} is {total}" if total else "", f"That is {like}" if like else "")


def _latest(country: Country, *path: str) -> str:
    """Return the first value below the path whose heading ends in a year (the records list the latest first)."""
    group: Any = country.record
    for heading in path:
        group = group.get(heading) if isinstance(group, Mapping) else None
    if not isinstance(group, Mapping):
        return ""
    years = [heading for heading in group if _LATEST.search(heading)]
    return country.text(*path, years[0]) if years else ""


def _without_label(text: str) -> str:
    return re.sub(r"^(?:description|note)\s*:\s*", "", text)


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."
