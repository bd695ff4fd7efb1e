"""Questions in everyday words over a corpus that uses its own: which search finds the fact has to be learned.

"How old does a newborn of the country whose capital is Lima get?" is answered by the passage "Life expectancy at birth in Peru",
and by hardly any search in the question's words. It is the situation of a search agent in a corpus with a vocabulary of its own.
Each goal is asked for in everyday words (`lay`) and in those of the corpus (`plain`). Goals of `WARM` may be taught by a warm start;
those of `HELD_OUT` stand in none of its transcripts, neither their questions nor their searches.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

from hiexp_verl.types import Passage, Question
from recipes.demo_data.factbook.countries import Country, ascii_fold, same_name
from recipes.demo_data.factbook.passages import passages_of
from recipes.demo_data.factbook.questions import leaks, shared_values, split_countries

Wording = Literal["lay", "plain"]
Values = Callable[[Country], tuple[str, ...]]


@dataclass(frozen=True)
class Goal:
    """A fact of a country: its right answers, the ways to ask for it, and the searches that find it.

    `{c}` stands for the country in questions, `{}` in searches. A goal with a `lead` has a passage of its own: title and sentence.
    """

    values: Values
    lay: tuple[str, ...]
    plain: str
    searches: tuple[str, ...]
    lead: tuple[str, str] | None = None


@dataclass(frozen=True)
class Key:
    """A way to name a country without its name: the phrase in a question, and the searches that find the country."""

    phrase: str
    searches: tuple[str, ...]


def _fact(name: str) -> Values:
    return lambda country: country.facts.get(name, ())


def _first(*path: str) -> Values:
    """Return what reads the first item of a list ("sugarcane" of "sugarcane, beef, maize")."""

    def values(country: Country) -> tuple[str, ...]:
        text = country.text(*path)
        item = re.split(r"[,;(]| \d|/", text)[0].strip()
        plain = 3 < len(item) < 40 and text.lower() not in ("none", "na") and not re.search(r"\d|:| - ", item)
        return tuple(dict.fromkeys((item, ascii_fold(item)))) if plain else ()

    return values


def _number(*path: str) -> Values:
    """Return what reads the number at the start of a text, with its unit where that is short."""

    def values(country: Country) -> tuple[str, ...]:
        text = re.sub(r"^[a-z ]+: ", "", country.text(*path))
        match = re.match(r"\$?\d[\d.,]*(?:%| (?:million|billion|thousand)(?: sq km| kWh| tons)?| sq km| km| years| m| tons)?", text)
        return (match[0],) if match and not re.match(r"0(?:$|[ %])", match[0]) else ()

    return values


def _area(country: Country) -> tuple[str, ...]:
    return _number("Geography", "Area", "total")(country) or _number("Geography", "Area", "total ")(country)


def _lowest_point(country: Country) -> tuple[str, ...]:
    text = country.text("Geography", "Elevation", "lowest point")
    match = re.match(r"([A-Z][\w' .\-]+?)(?: \(.*?\))? -?[\d.,]+ m", text)
    return tuple(dict.fromkeys((match[1], ascii_fold(match[1])))) if match else ()


_PEOPLE = "People and Society"
WARM: dict[str, Goal] = {
    "capital": Goal(
        _fact("capital"),
        ("In which city does the government of {c} sit?",),
        "What is the capital of {c}?",
        ("capital of {}", "{} capital city", "which city is the capital of {}"),
    ),
    "highest point": Goal(
        _fact("highest point"),
        ("Where does one stand highest in {c}?",),
        "What is the highest point of {c}?",
        ("highest point of {}", "{} elevation highest point", "elevation of {}"),
    ),
    "lowest point": Goal(
        _lowest_point,
        ("Where does one stand lowest in {c}?",),
        "What is the lowest point of {c}?",
        ("lowest point of {}", "{} elevation lowest", "mean elevation of {} and lowest point"),
    ),
    "currency": Goal(
        _fact("currency"),
        ("What money does one pay with in {c}?",),
        "What is the currency of {c}?",
        ("currency of {}", "prices and wages in {}", "one US dollar bought {} currency"),
    ),
    "independence": Goal(
        _fact("independence"),
        ("Since what year has {c} been a state of its own?",),
        "In what year did {c} become independent?",
        ("{} became independent", "independence of {}", "independence and national holiday of {}"),
    ),
    "population": Goal(
        _number(_PEOPLE, "Population", "total"),
        ("How many people live in {c}?",),
        "What is the population of {c}?",
        ("population of {}", "{} population median age", "urban population of {}"),
    ),
    "median age": Goal(
        _number(_PEOPLE, "Median age", "total"),
        ("How old is the middle one of all people in {c}?",),
        "What is the median age in {c}?",
        ("median age of {}", "{} population and median age", "population of {} median"),
    ),
    "area": Goal(
        _area,
        ("How much ground does {c} cover?",),
        "What is the area of {c}?",
        ("area of {}", "{} area sq km", "area of {} size"),
    ),
    "languages": Goal(
        _first(_PEOPLE, "Languages", "Languages"),
        ("What do people in {c} speak first of all?", "Which tongue comes first in {c}?"),
        "What is the first of the languages of {c}?",
        ("languages of {}", "languages spoken in {}", "{} languages spoken official"),
    ),
    "industries": Goal(
        _first("Economy", "Industries"),
        ("What do the factories of {c} make first of all?", "Which trade comes first in {c}?"),
        "What is the first of the industries of {c}?",
        ("industries of {}", "{} industries", "industries of {} economy"),
    ),
    "resources": Goal(
        _first("Geography", "Natural resources"),
        ("What is there to dig up in {c} first of all?", "Which treasure of the ground comes first in {c}?"),
        "What is the first of the natural resources of {c}?",
        ("natural resources of {}", "{} natural resources", "list of natural resources of {}"),
    ),
    "imports": Goal(
        _first("Economy", "Imports - commodities"),
        ("What does {c} buy most from abroad?", "Which goods come into {c} most?"),
        "What is the first of the main imports of {c}?",
        ("main imports of {}", "{} imports", "imports of {} commodities"),
    ),
    "land borders": Goal(
        _number("Geography", "Land boundaries", "total"),
        ("How long is the way around {c} on land?",),
        "How long are the land borders of {c}?",
        ("land borders of {} long in all", "borders of {}", "{} borders length"),
    ),
    "government": Goal(
        _first("Government", "Government type"),
        ("Who has the say in {c}, and how?",),
        "How is {c} governed?",
        ("government of {}", "{} is governed as", "type of government of {}"),
    ),
    "fertility": Goal(
        _number(_PEOPLE, "Total fertility rate"),
        ("How many babies does a mother of {c} have?",),
        "What is the total fertility rate of {c}?",
        ("total fertility rate of {}", "fertility rate {}", "{} fertility"),
        ("Fertility in {c}", "The total fertility rate of {c} is {value}"),
    ),
    "literacy": Goal(
        _number(_PEOPLE, "Literacy", "total population"),
        ("What part of the people in {c} can read and write?",),
        "What is the literacy rate of {c}?",
        ("literacy rate of {}", "literacy in {}", "{} literacy"),
        ("Literacy in {c}", "The literacy rate of {c} is {value}"),
    ),
    "physicians": Goal(
        _number(_PEOPLE, "Physician density"),
        ("How many doctors are there for a thousand people in {c}?",),
        "What is the physician density of {c}?",
        ("physician density of {}", "physicians in {}", "{} physicians per population"),
        ("Physicians in {c}", "The physician density of {c} is {value}"),
    ),
    "airports": Goal(
        _number("Transportation", "Airports"),
        ("On how many fields can planes land in {c}?",),
        "How many airports does {c} have?",
        ("airports of {}", "number of airports in {}", "{} airports"),
        ("Airports of {c}", "The number of airports of {c} is {value}"),
    ),
    "railways": Goal(
        _number("Transportation", "Railways", "total"),
        ("How long are the train tracks of {c}?",),
        "How long are the railways of {c}?",
        ("railways of {}", "total railways in {}", "{} railways length"),
        ("Railways of {c}", "The railways of {c} have a total length of {value}"),
    ),
    "petroleum": Goal(
        _number("Energy", "Petroleum", "refined petroleum consumption"),
        ("How much oil does {c} burn in a day?",),
        "What is the refined petroleum consumption of {c}?",
        ("refined petroleum consumption of {}", "petroleum of {}", "{} refined petroleum"),
        ("Petroleum in {c}", "The refined petroleum consumption of {c} is {value}"),
    ),
    "waste": Goal(
        _number("Environment", "Waste and recycling", "municipal solid waste generated annually"),
        ("How much rubbish does {c} throw away in a year?",),
        "How much municipal solid waste does {c} generate annually?",
        ("municipal solid waste of {}", "waste and recycling in {}", "{} municipal solid waste"),
        ("Waste and recycling in {c}", "Municipal solid waste generated annually by {c}: {value}"),
    ),
    "obesity": Goal(
        _number(_PEOPLE, "Obesity - adult prevalence rate"),
        ("What part of the grown-ups in {c} is too heavy?",),
        "What is the adult obesity rate of {c}?",
        ("adult obesity rate of {}", "obesity in {}", "{} obesity prevalence"),
        ("Obesity in {c}", "The adult obesity prevalence rate of {c} is {value}"),
    ),
}
HELD_OUT: dict[str, Goal] = {
    "internet code": Goal(
        _fact("internet code"),
        ("In which letters do the web addresses of {c} end?", "What stands at the end of the web sites of {c}?"),
        "What is the internet country code of {c}?",
        ("internet country code of {}", "communications in {} internet code"),
    ),
    "agriculture": Goal(
        _first("Economy", "Agricultural products"),
        ("What do the farmers of {c} harvest most?", "What comes from the fields of {c} most?"),
        "What is the first of the agricultural products of {c}?",
        ("agricultural products of {}", "agriculture in {}"),
    ),
    "ethnic groups": Goal(
        _first(_PEOPLE, "Ethnic groups"),
        ("Which folk is the largest one in {c}?", "To which folk do most in {c} belong?"),
        "Which of the ethnic groups of {c} is the largest?",
        ("ethnic groups of {}", "{} ethnic groups"),
    ),
    "symbols": Goal(
        _first("Government", "National symbol(s)"),
        ("What stands for {c} on badges and stamps?", "Which creature or thing is the emblem of {c}?"),
        "What is the first of the national symbols of {c}?",
        ("national symbols of {}", "{} national symbols"),
    ),
    "mobile": Goal(
        _number("Communications", "Telephones - mobile cellular", "total subscriptions"),
        ("How many cell phones are in use in {c}?", "How many people of {c} have a phone in their pocket?"),
        "How many mobile telephone subscriptions are there in {c}?",
        ("mobile telephone subscriptions in {}", "communications in {} mobile telephone"),
    ),
    "internet users": Goal(
        _number("Communications", "Internet users", "percent of population"),
        ("How large a part of the people in {c} is online?", "What part of {c} surfs the web?"),
        "What share of the population uses the internet in {c}?",
        ("share of the population that uses the internet in {}", "communications in {} share of the internet"),
    ),
    "exports": Goal(
        _first("Economy", "Exports - commodities"),
        ("What does {c} sell most to the world?", "Which goods leave {c} most?"),
        "What is the first of the main exports of {c}?",
        ("main exports of {}", "{} main exports"),
    ),
    "hazards": Goal(
        _first("Geography", "Natural hazards"),
        ("Which danger comes first in {c}?", "What do people in {c} fear from nature first of all?"),
        "What is the first of the natural hazards in {c}?",
        ("natural hazards in {}", "{} natural hazards"),
    ),
    "life expectancy": Goal(
        _number(_PEOPLE, "Life expectancy at birth", "total population"),
        ("How old does a newborn of {c} get?", "How many years does one get to live in {c}?"),
        "What is the life expectancy at birth in {c}?",
        ("life expectancy at birth in {}", "{} life expectancy"),
        (
            "Life expectancy in {c}",
            "The life expectancy at birth in {c} is {value} for women and men taken together, by the latest estimate",
        ),
    ),
    "forest": Goal(
        _number("Environment", "Land use", "forest"),
        ("What part of {c} do trees cover?", "How large a part of {c} is woods?"),
        "What is the share of forest in the land use of {c}?",
        ("forest in the land use of {}", "land use of {} forest"),
        ("Land use of {c}", "The share of forest in the land use of {c} is {value}"),
    ),
    "tobacco": Goal(
        _number(_PEOPLE, "Tobacco use", "total"),
        ("What part of the people in {c} smokes?", "How many of a hundred in {c} light cigarettes?"),
        "What is the rate of tobacco use in {c}?",
        ("tobacco use in {}", "{} tobacco use rate"),
        ("Tobacco use in {c}", "The rate of tobacco use in {c} is {value}"),
    ),
    "electricity": Goal(
        _number("Energy", "Electricity", "consumption"),
        ("How much power comes out of the sockets of {c} in a year?", "How much current do the lamps and machines of {c} take in a year?"),
        "What is the electricity consumption of {c}?",
        ("electricity consumption of {}", "{} electricity consumption"),
        ("Electricity in {c}", "The electricity consumption of {c} is {value}"),
    ),
    "refugees": Goal(
        _number("Transnational Issues", "Refugees and internally displaced persons", "refugees"),
        ("How many who fled from other lands has {c} taken in?", "How many people found shelter from war in {c}?"),
        "How many refugees does {c} have?",
        ("refugees in {}", "number of refugees in {}"),
        ("Refugees in {c}", "The number of refugees in {c} is {value}"),
    ),
}
GOALS = WARM | HELD_OUT
KEYS: dict[str, Key] = {
    "capital": Key(
        "the country whose capital is {key}",
        ("{} capital of which country", "which country has the capital {}", "{} is the capital of", "country with the capital {}"),
    ),
    "highest point": Key(
        "the country whose highest point is {key}",
        ("{} highest point country", "which country has the highest point {}", "{} is the highest point of", "{} highest point elevation"),
    ),
    "anthem": Key(
        'the country whose national anthem is "{key}"', ("{} national anthem country", "{} is the national anthem of", "national anthem {}")
    ),
    "only neighbour": Key("the only country that borders {key}", ("{} shares a land border with", "borders of {}", "land borders of {}")),
    "customer": Key("the country that buys most from {key}", ("most exports of {} go to", "trade partners of {}", "{} exports partners")),
}
_SHORT = {"USA": "United States", "UK": "United Kingdom", "UAE": "United Arab Emirates"}


def lay_passages(countries: Sequence[Country]) -> list[Passage]:
    """Return the passages of the factbook and those that goals with a lead have besides."""
    return [passage for country in countries if country.name for passage in [*passages_of(country), *_own_passages(country)]]


def _own_passages(country: Country) -> Iterator[Passage]:
    for number, goal in enumerate(goal for goal in GOALS.values() if goal.lead and goal.values(country)):
        title, sentence = goal.lead or ("", "")
        c = country.the_name
        text = sentence.format(c=c, value=goal.values(country)[0])
        yield Passage(f"{country.code}-lay-{number:02d}", title.format(c=c), f"{text[0].upper()}{text[1:]}.")


def lay_questions(countries: Sequence[Country], goals: Mapping[str, Goal], wording: Wording = "lay") -> list[Question]:
    """Return the questions for these goals, in a fixed shuffled order, each with one of its wordings.

    `meta`: "goal"; "keys", the names in `KEYS` of the hops to the country; "bridge", the countries found on the way; "name", what
    the question names; "family", keys and goal; "wording"; "split" of the country.
    """
    splits = split_countries(countries)
    found = []
    for keys, name, start, bridge, country in _ways(countries):
        if splits[start.code] != splits[country.code]:
            continue
        phrase = country_phrase(keys, start.the_name if name == start.name else name)
        for goal_name, goal in goals.items():
            answers = goal.values(country)
            gives_away = answers and (leaks(country.name, answers[0]) or answers[0].lower() in phrase.lower())
            if not answers or gives_away or goal_name in keys:
                continue
            identity = "-".join([wording, start.code, *bridge, *keys, goal_name]).replace(" ", "_")
            wordings = goal.lay if wording == "lay" else (goal.plain,)
            number = int(_digest(identity), 16) % len(wordings)
            family = " > ".join([*keys, goal_name])
            meta = {"family": family, "split": splits[country.code], "goal": goal_name, "keys": list(keys), "bridge": list(bridge)}
            meta |= {"name": name, "wording": f"{wording} {number}"}
            found.append(Question(identity, wordings[number].format(c=phrase), answers, meta))
    return sorted(found, key=lambda question: _digest(question.id))


def country_phrase(keys: Sequence[str], name: str) -> str:
    """Return how a question names the country that is found from the name by these keys, in the order of their searches."""
    for key in keys:
        name = KEYS[key].phrase.format(key=name)
    return name


def _ways(countries: Sequence[Country]) -> Iterator[tuple[tuple[str, ...], str, Country, tuple[str, ...], Country]]:
    """Yield (keys in the order of their searches, name in the question, its country, countries found, the last one)."""
    shared = {kind: shared_values(countries, kind) for kind in ("capital", "highest point", "anthem")}
    next_to = [(country, "only neighbour", other) for country, other in _only_neighbours(countries)]
    next_to += [(country, "customer", other) for country, other in _customers(countries)]
    for kind in ("capital", "highest point", "anthem"):
        for country in countries:
            name = country.facts.get(kind, ("",))[0]
            if not country.sovereign or not name or name in shared[kind] or leaks(country.name, name):
                continue
            yield (kind,), name, country, (country.name,), country
            for start, key, other in next_to:
                if start is country and not leaks(other.name, name):
                    yield (kind, key), name, country, (country.name, other.name), other
    for start, key, other in next_to:
        yield (key,), start.name, start, (other.name,), other


def _only_neighbours(countries: Sequence[Country]) -> Iterator[tuple[Country, Country]]:
    for country in countries:
        if country.sovereign and len(country.neighbours) == 1:
            yield from ((country, other) for other in countries if other.sovereign and same_name(other.name, country.neighbours[0]))


def _customers(countries: Sequence[Country]) -> Iterator[tuple[Country, Country]]:
    """Yield (country, the one that most of its exports go to), where the records say so plainly."""
    for country in countries:
        match = re.match(r"([A-Z][A-Za-z ]+) \d+%", country.text("Economy", "Exports - partners"))
        if country.sovereign and match:
            name = _SHORT.get(match[1], match[1])
            yield from ((country, other) for other in countries if other.sovereign and same_name(other.name, name))


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
