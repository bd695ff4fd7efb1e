"""Countries of the factbook: raw records cleaned into facts that a question can be checked against.

The records were written for people: values carry notes, brackets, several values, HTML. A fact that is not plainly one
value is left out here, so that every question made from the rest has one right answer.
"""

import html
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiexp_verl.errors import HiExpError

# Short names that the records spell as a note, an abbreviation or not at all.
_NAMES = {
    "cf": "Republic of the Congo",
    "cg": "Democratic Republic of the Congo",
    "dr": "Dominican Republic",
    "fk": "Falkland Islands",
    "gz": "Gaza Strip",
    "sv": "Svalbard",
    "um": "United States Pacific Island Wildlife Refuges",
    "vt": "Vatican City",
}
_ABBREVIATIONS = {"UK": "United Kingdom", "US": "United States", "UAE": "United Arab Emirates", "DRC": "Democratic Republic of the Congo"}
_NOT_COUNTRIES = {"xx", "ee"}  # the world, the European Union
# Currencies that were replaced after the records were written, by the country's code.
_OLD_CURRENCIES = {"bu", "pe", "zi"}
_WITH_ARTICLE = re.compile(
    r"^(?:United|Republic|Democratic|Dominican Rep|Central African|Federated|Isle|British|French Southern|Northern Mariana)"
    r"|(?:Islands|Strip|Territory|Lands)$|^(?:Comoros|Maldives|Netherlands|Philippines|Seychelles)$"
)
_SINGULARS = {
    "bolivares": "bolivar",
    "colones": "colon",
    "kroner": "krone",
    "kronor": "krona",
    "kronur": "krona",
    "koruny": "koruna",
    "lei": "leu",
    "leke": "lek",
    "maloti": "loti",
    "emalangeni": "lilangeni",
    "meticais": "metical",
    "quetzales": "quetzal",
    "zlotych": "zloty",
}
_DATE = re.compile(r"(\d{1,2} [A-Z][a-z]+ (\d{4})) \((?:from|following) [^();]*\)(?:; notable earlier date.*)?")
_NEIGHBOUR = re.compile(r"([A-Z][^\d;,]*?) [\d.,]*\d ?km")
_NO_NAME = re.compile(r"\d|unnamed|location|range|near |note|[;,]| and | was\b", re.IGNORECASE)


@dataclass(frozen=True)
class Country:
    """A country or territory; `facts` maps a property to its right answers, the usual spelling first."""

    code: str
    name: str
    sovereign: bool
    facts: Mapping[str, tuple[str, ...]]
    neighbours: tuple[str, ...]  # names, as the record spells them
    record: Mapping[str, Any]

    @property
    def the_name(self) -> str:
        """Return the name as it stands inside a sentence ("the Netherlands")."""
        return f"the {self.name}" if _WITH_ARTICLE.search(self.name) else self.name

    def text(self, *path: str) -> str:
        """Return the cleaned text at the path of headings, "" when there is none."""
        return field(self.record, *path)


def read_countries(factbook: Path) -> list[Country]:
    """Read the countries of a fetched factbook, sorted by code.

    Raises:
        HiExpError: no records there, or a record that is not JSON.
    """
    countries = []
    for path in sorted(factbook.glob("*/*.json"), key=lambda path: path.stem):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise HiExpError(f"{path} is not JSON ({error}); delete {factbook} and fetch the factbook again") from error
        if path.stem not in _NOT_COUNTRIES:
            countries.append(country_of(path.stem, record))
    if not countries:
        raise HiExpError(f"{factbook} holds no country records (*/*.json); fetch the factbook again")
    return countries


def country_of(code: str, record: Mapping[str, Any]) -> Country:
    """Return the country with the facts that are plainly one value."""
    name = _name(code, record)
    independence = field(record, "Government", "Independence")
    found = {
        "capital": _capital(record),
        "highest point": _highest_point(record),
        "currency": () if code in _OLD_CURRENCIES else _currency(record),
        "independence": _independence(independence),
        "anthem": _anthem(record),
        "internet code": _internet_code(record),
    }
    return Country(
        code=code,
        name=name,
        sovereign=bool(independence) and not independence.startswith("none"),
        facts={key: _with_ascii(values) for key, values in found.items() if values},
        neighbours=_neighbours(record),
        record=record,
    )


def field(record: Mapping[str, Any], *path: str) -> str:
    """Return the cleaned text at the path of headings, "" when there is none."""
    value: Any = record
    for heading in path:
        value = value.get(heading) if isinstance(value, Mapping) else None
    if isinstance(value, Mapping):
        value = value.get("text")
    return clean(value) if isinstance(value, str) else ""


def clean(text: str) -> str:
    """Return the text without HTML, on one line; line breaks become semicolons."""
    text = html.unescape(html.unescape(text))
    text = re.sub(r"(?:\s*<br\s*/?>\s*|</p>\s*<p>)+", "; ", text)
    text = re.sub(r"<[^<>]{0,200}>", "", text)
    text = re.sub(r"\s+", " ", text.replace(", as shown on this population distribution map", "")).strip(" ;")
    return re.sub(r"\s*;(?:\s*;)+", ";", text)


def ascii_fold(text: str) -> str:
    """Return the text without accents ("Brasília" -> "Brasilia")."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)).replace("\u2019", "'")


def same_name(left: str, right: str) -> bool:
    """Tell whether two spellings name the same country."""
    return _key(left) == _key(right)


def _key(name: str) -> str:
    return ascii_fold(_ABBREVIATIONS.get(name, name)).casefold().removeprefix("the ")


def _with_ascii(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*values, *(ascii_fold(value) for value in values)]))


def _name(code: str, record: Mapping[str, Any]) -> str:
    if code in _NAMES:
        return _NAMES[code]
    for form in ("conventional short form", "conventional long form"):
        name = field(record, "Government", "Country name", form)
        if name and name != "none":
            return re.sub(r"\s*[;(].*", "", name)
    return ""


def _capital(record: Mapping[str, Any]) -> tuple[str, ...]:
    text = field(record, "Government", "Capital", "name")
    if text == "Washington, D.C.":
        return ("Washington, D.C.", "Washington")
    if re.search(r"[;,]|\bin\b|capital|seat|center|\bnote\b|\bcity\)", re.sub(r"\(.*?\)", _keep_words, text)):
        return ()
    match = re.fullmatch(r"([A-Z][\w' .\-\u2019]+?)(?: \(([^()]*)\))?", text)
    if not match:
        return ()
    aliases = re.split(r"[,/]\s*", match[2]) if match[2] and " is " not in match[2] else []
    return (match[1], *(alias for alias in aliases if alias[:1].isupper()))


def _keep_words(match: re.Match[str]) -> str:
    """Keep what makes a bracket a note on the kind of capital; commas between other spellings do no harm."""
    return "capital" if re.search(r"capital|seat|center|city\)", match[0]) else ""


def _highest_point(record: Mapping[str, Any]) -> tuple[str, ...]:
    text = field(record, "Geography", "Elevation", "highest point").partition(";")[0]
    match = re.fullmatch(r"([^()]*?)(?: \(([^()]*)\))?,? [\d.,]+(?: m)?(?: \([^()]*\))?", text)
    if not match or (_NO_NAME.search(match[1]) and match[1] != "K2") or not match[1][:1].isupper():
        return ()
    name, *other_spellings = match[1].split("/")
    aliases = other_spellings
    if re.fullmatch(r"(?:[A-Z][\w'.\-]* ?)+", match[2] or ""):
        aliases.append(match[2])
    if " on " in name:
        aliases.append(name.split(" on ")[0])
    return (name, *aliases)


def _currency(record: Mapping[str, Any]) -> tuple[str, ...]:
    text = field(record, "Economy", "Exchange rates", "Currency")
    match = re.fullmatch(r"([^()/]+?)(?: \([^()]*\))? per US dollar\b.*", text)
    if not match or " or " in match[1]:
        return ()
    plural, words = match[1], match[1].split()
    singular = _SINGULARS.get(words[-1], words[-1].removesuffix("s"))
    return (plural, " ".join([*words[:-1], singular]))


def _independence(text: str) -> tuple[str, ...]:
    match = _DATE.fullmatch(text)
    return (match[2], match[1]) if match else ()


def _anthem(record: Mapping[str, Any]) -> tuple[str, ...]:
    text = field(record, "Government", "National anthem(s)", "title")
    match = re.match(r'["“]([^"“”]{4,60})["”]', text)
    title = match[1] if match else ""
    return (title,) if title and not re.search(r"national anthem|himno|hymne|hino|anthem of", title, re.IGNORECASE) else ()


def _internet_code(record: Mapping[str, Any]) -> tuple[str, ...]:
    text = field(record, "Communications", "Internet country code")
    return (text,) if re.fullmatch(r"\.[a-z]{2}", text) else ()


def _neighbours(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the bordering countries; nothing when an entry cannot be read, so that "the only neighbour" is certain."""
    text = field(record, "Geography", "Land boundaries", "border countries")
    text = re.sub(r"\([^()]*\)", "", text)
    entries = [entry.strip() for entry in re.split(r";|, (?=[A-Z])| and (?=[A-Z][^;]*km)", text) if entry.strip()]
    matches = [_NEIGHBOUR.match(entry) for entry in entries]
    return tuple(_ABBREVIATIONS.get(m[1].strip(), m[1].strip()) for m in matches if m) if all(matches) else ()
