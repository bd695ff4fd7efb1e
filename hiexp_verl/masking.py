"""Masks names and numbers in a text; no model.

"Who directed the film Suicide Kings in 1997?" becomes "Who directed the film X in a given year?". A retrieved passage such as
"Suicide Kings is a 1997 crime film" gives the kind of the name, which replaces X: "a film".
"""

import re
from collections.abc import Iterable, Sequence

from hiexp_verl.protocol import documents_in
from hiexp_verl.scoring import UNSPACED, normalise
from hiexp_verl.text import word_set
from hiexp_verl.types import GIVEN
from hiexp_verl.wording import POLITE, plain

_QUOTED = re.compile(r"[\"\u201c\u201d\u300a\u300c\u300e]([^\"\u201c\u201d\u300a-\u300f]{1,120})[\"\u201c\u201d\u300b\u300d\u300f]")
_UPPER = "".join(chr(c) for c in range(0x10000) if chr(c).isupper() or chr(c).istitle())
_CAPITAL = rf"(?:[{_UPPER}][\w'\u2019.&-]*)"
_JOIN = r"(?:of the|of|the|de la|de|del|di|da|von|van|le|la|el|al|bin|ad|es|ash|ed|du|dos|v\.|vs\.|&|for the|for|on the|in the|to the)"
_NAME = re.compile(rf"(?<![\w]){_CAPITAL}(?:,? (?:{_JOIN} )?(?:{_CAPITAL}|\d+\b))*")
_MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_DATE = re.compile(rf"\b(?:{_MONTH} \d{{1,2}}(?:,? \d{{4}})?|\d{{1,2}} {_MONTH}(?: \d{{4}})?)\b")
_YEAR = re.compile(r"\b(?:1[0-9]|20)\d\d(?:s|[-\u2013/]\d{2,4})?(?: and (?:1[0-9]|20)\d\ds?)?\b")
_YEAR_ADJECTIVE = re.compile(rf"(^|\b(?:the|an?|what|which|is) ){_YEAR.pattern} (?!and|or)(?=[A-Za-z])", re.IGNORECASE)
_NUMBER = re.compile(r"(?<!\w)\d[\d.,:]*(?:st|nd|rd|th)?(?!\w)")
# "Suicide Kings is a 1997 American mystery crime film based on ...": the noun phrase up to what follows it.
_AFTER_KIND = (
    r"(?= (?:of|in|by|from|who|that|which|and|or|based|located|directed|written|for|on|at|with|to|known|born|best|as|published"
    r"|founded|released|made|set|created|produced|where|when|used|between|near|under|currently|formed)\b|[,.;:(])"
)
_IS_A = re.compile(r"\b(?:is|was|are|were) (?:a|an|the|one of the|the name of an?) ((?:[\w\u2019'-]+ ){0,7}?[\w-]+?)" + _AFTER_KIND)
_SMALL = word_set(
    """
    a an the of in on at to for by from with and or is are was were be been do does did has have had can could which what who whom
    whose when where why how that this these those it its he she they his her their there both between before after as if not than
    then into out about over under most more first last same other name give find list main in-between also only still best known many
    much long during besides according despite unlike identify determine
    """
)
# Adjectives of nationality and faith: capitalised, but no name.
_NATIONS = "African German Korean European Roman Cuban French Greek Dutch Welsh Swiss Czech Thai British Islamic US"
_NATION = rf"(?:[A-Z]\w+(?:ian|ish|ese|ican)|{'|'.join(_NATIONS.split())})"
_ADJECTIVE = re.compile(rf"{_NATION}(?:-[A-Z]\w+)?$|\w+-American$")
_NATIONAL = re.compile(rf"\b{_NATION}(?:-[A-Z]\w+)? (?=[a-z]{{4,}})")  # "American actor" is "actor"
LETTER = re.compile(r"\b(?:an? |the )?[XYZW]\b")  # of a masked name whose kind is not known
# Ends of noun phrases that name no kind.
_NO_KIND = word_set("name term one number part member set kind type group person example series list") | _SMALL


class Masker:
    """Masks the names of one episode: those in the question, and the titles of the passages that were retrieved.

    Args:
        question: its capitalised names are known names, also where a query writes them in lower case.
        documents: what the searches returned ("Doc 1(Title: ...) text" lines); the kinds of names come from them.
        answers: kinds that are an answer to the question ("a singer") are not used: the name becomes a letter.
    """

    def __init__(self, question: str, documents: Iterable[str] = (), answers: Iterable[str] = ()) -> None:
        self._answers = {normalise(answer) for answer in answers}
        self._kinds: dict[str, str] = {}
        self._lower_words: set[str] = set()
        self._known: list[str] = []
        titles: set[str] = set()
        for text in documents:
            self._lower_words.update(re.findall(r"\b[a-z]{3,}\b", text))
            for title, body in documents_in(text):
                self._learn(title, body)
                titles |= {title, title.partition(" (")[0]}
        # Titles first: they show where a name with small words ends ("The Bears and I").
        self._known = _longest_first(title for title in titles if len(title) > 3 and not title.islower())
        self._known = _longest_first([*self._known, *self.names(plain(question))])

    def names(self, text: str) -> list[str]:
        """Return the names in the text, in order, each once."""
        return list(dict.fromkeys(name for _, _, name in self._spans(text)))

    def kind_of(self, name: str) -> str:
        """Return the kind of the name ("film"), "" when no passage has it."""
        return self._kinds.get(normalise(name), "")

    def mask_known(self, text: str) -> str:
        """Return the text without the names of this episode; other words stay as they are (for prose that a model wrote)."""
        for name in self._known:
            # A title of one ordinary word ("Capital") is that word in prose.
            if name.lower() not in self._lower_words:
                kind = self.kind_of(name)
                text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", f"the {kind}" if kind else "X", text)
        return _articles(text)

    def mask(self, text: str) -> str:
        """Return the text with names replaced by their kind or by X, Y, Z, and dates and numbers generalised."""
        text = self._replace_names(_DATE.sub("a given date", plain(text)))
        # "the 1997 crime film" loses the year, "in 1997" keeps its meaning.
        text = _YEAR_ADJECTIVE.sub(r"\1", text)
        text = _YEAR.sub("a given year", text)
        text = _NUMBER.sub("some number", text)
        return _tidy(text)

    def _learn(self, title: str, body: str) -> None:
        bare, _, note = title.partition(" (")
        sentence = _IS_A.search(body[:300])
        kind = _head(note.rstrip(")")) or (_head(sentence[1]) if sentence else "")
        for name in {normalise(title), normalise(bare)}:
            if kind and name and kind not in self._answers:
                self._kinds.setdefault(name, kind)

    def _replace_names(self, text: str) -> str:
        out, end, used = [], 0, dict[str, str]()
        for start, stop, name in self._spans(text):
            key = normalise(name)
            if key not in used:
                used[key] = self._placeholder(name, text[:start], list(used.values()))
            out += [text[end:start], used[key]]
            end = stop
        return "".join([*out, text[end:]])

    def _placeholder(self, name: str, before: str, used: Sequence[str]) -> str:
        kind = self.kind_of(name)
        previous = (before.lower().split() or [""])[-1]
        if kind and previous in ("the", "a", "an", "this"):
            return kind
        if kind and previous != kind:
            return f"another {kind}" if f"a {kind}" in used else f"a {kind}"
        return next((letter for letter in "XYZW" if letter not in used), "X")

    def _spans(self, text: str) -> list[tuple[int, int, str]]:
        """Return (start, stop, name) without overlaps: known names, then quoted text and capitalised runs between them."""
        polite = POLITE.match(text)
        begin = polite.end() if polite else 0
        chosen: list[tuple[int, int, str]] = []
        for name in self._known:
            start = text.find(name, begin)
            while start >= 0:
                stop = start + len(name)
                whole = not (text[start - 1 : start].isalnum() or text[stop : stop + 1].isalnum())
                if whole and all(stop <= other[0] or start >= other[1] for other in chosen):
                    chosen.append((start, stop, name))
                start = text.find(name, stop)
        gaps = zip([begin, *(stop for _, stop, _ in sorted(chosen))], [*(start for start, _, _ in sorted(chosen)), len(text)], strict=True)
        found = [span for start, stop in gaps for span in self._runs(text, start, stop)]
        return sorted(chosen + found)

    def _runs(self, text: str, start: int, stop: int) -> list[tuple[int, int, str]]:
        spans = [(m.start(), m.end(), m[1]) for m in _QUOTED.finditer(text, start, stop)]
        for match in _NAME.finditer(text, start, stop):
            span = self._trim(text, match.start(), match.end())
            if span is not None and all(span[1] <= other[0] or span[0] >= other[1] for other in spans):
                spans.append(span)
        return spans

    def _trim(self, text: str, start: int, stop: int) -> tuple[int, int, str] | None:
        """Return (start, stop, name) of a capitalised run without its first function words and adjectives; None when no name is left."""
        while True:
            words = text[start:stop].split(" ")
            first = re.sub(r"['\u2019](?:s|re|d)$", "", words[0].rstrip(".,'\u2019"))  # "What's"
            starts_sentence = start == 0 or text[:start].rstrip()[-1:] in ".?!:"
            is_common = starts_sentence and len(words) == 1 and first.lower() in self._lower_words and not first.isupper()
            ordinary = first.lower() in _SMALL or is_common
            before_noun = len(words) == 1 and text[stop : stop + 1] == " " and text[stop + 1 : stop + 2].islower()
            adjective = before_noun and bool(_ADJECTIVE.match(first))
            if not ordinary and not adjective and not first.isdecimal():
                break
            start += len(words[0]) + 1
            if start >= stop:
                return None
        name = re.sub(r"[.,'\u2019]+$|['\u2019]s$", "", text[start:stop])
        if len(name) < 2 and not name.isalpha():
            return None
        return start, start + len(name), name


def knows_names(text: str) -> bool:
    """Return whether the script of the text has capitals, by which names are known; Chinese, Arabic or Hindi has none."""
    return any(c.islower() or c.isupper() for c in text)


def kind_of(question: str) -> str:
    """Return the question with "..." for each name, date and number: what questions of one kind share."""
    question = plain(question)
    return _without(Masker(question).names(question), question)


def _without(names: Sequence[str], text: str) -> str:
    """Return the text with "..." for each of the names, each date and number."""
    for name in sorted(names, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", GIVEN, text)
    for pattern in (_DATE, _YEAR, _NUMBER):
        text = pattern.sub(GIVEN, text)
    text = re.sub(rf"{re.escape(GIVEN)} \([^()]*\)", GIVEN, text)  # "film ... (1997 film)"
    return re.sub(r"[\"\u201c\u201d\u300a-\u300f]", "", " ".join(text.split()))


def name_of(question: str) -> str:
    """Return the one name in the question; "" where it has none, or more than one name, date or number."""
    question = plain(question)
    names = Masker(question).names(question)
    return names[0] if len(names) == 1 and _without(names, question).count(GIVEN) == 1 else ""


def redact(text: str, answers: Sequence[str], question: str) -> str:
    """Return the text with "the answer" for each answer that the question itself does not contain."""
    asked = f" {normalise(question)} "
    for answer in sorted(answers, key=len, reverse=True):
        words = normalise(answer).split()
        if words and f" {' '.join(words)} " not in asked and words not in (["yes"], ["no"]):
            text = pattern_of(answer).sub("the answer", text)
    return text


def pattern_of(text: str) -> re.Pattern[str]:
    """Return a pattern of the text's words: any case, punctuation and articles between them; it matches nothing without words."""
    words = normalise(text).split()
    # `normalise` drops punctuation and "_": "oneil" must find "O'Neil", "us" "U.S.", "kabul" "_Kabul_".
    spelt = (r"(?:[^\w\s]|_)*".join(map(re.escape, word)) for word in words)
    between = r"[\W_]+(?:(?:the|a|an)[\W_]+)*".join(spelt)
    # In a script without spaces any character may stand beside a word.
    before = "" if words and UNSPACED.match(words[0][0]) else r"(?<![^\W_])(?:(?:the|a|an)\s+)?"
    after = "" if words and UNSPACED.match(words[-1][-1]) else r"(?![^\W_])"
    return re.compile(f"{before}{between}{after}" if words else r"(?!)", re.IGNORECASE)


def with_article(noun: str) -> str:
    """Return "a film", "an actor"."""
    return _articles(f"a {noun}")


def _head(phrase: str) -> str:
    """Return the noun at the end of a noun phrase ("film" of "crime film"); "" where the last word is none."""
    word = (phrase.split() or [""])[-1]
    is_noun = re.fullmatch(r"[a-z]{3,}", word) and word not in _NO_KIND and not word.endswith(("ed", "ing", "ous", "est"))
    return word if is_noun else ""


def _tidy(text: str) -> str:
    text = re.sub(r"[\"\u201c\u201d\u300a-\u300f]", "", text)
    text = _NATIONAL.sub("", text)
    text = _articles(re.sub(r"\b(X|Y|Z)(?: \1\b)+", r"\1", text))
    return re.sub(r"\s+([?,.;:])", r"\1", re.sub(r"\s+", " ", text)).strip(" ,;")


def _articles(text: str) -> str:
    """Return the text with one correct article for "the a film", "a the film", "an film"."""
    text = re.sub(r"\b(?:an?|the) (an?|another|the) (?=\w)", r"\1 ", text, flags=re.IGNORECASE)
    text = re.sub(r"\ban (?=[bcdfghjklmnpqrstvwxyz])", "a ", text)
    return re.sub(r"\ba (?=(?!uni|use|eu|one\b)[aeiou])", "an ", text)


def _longest_first(names: Iterable[str]) -> list[str]:
    return sorted(set(names), key=lambda name: (-len(name), name))
