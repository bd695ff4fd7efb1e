"""Scores of a short answer: exact match, F1, covered match, concise match, format; pure functions.

Normalisation and F1 follow the SQuAD v1.1 and HotpotQA evaluation scripts. A concise match is a covered match that says no more:
CEM pays for "A or B", for "not A" and for whole passages, and so does the reward of PVPO, within bounds.
"""

import html
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from hiexp_verl.config import RewardKind
from hiexp_verl.errors import HiExpError

FORMAT_REWARD = 0.1  # what a wrong but well-formed answer earns with `concise` and `pvpo`
LONG_ANSWER_RATIO = 3  # pvpo: from here on a covered answer may be luck or hedging, so F1 counts instead
CLOSE_F1 = 0.8  # an answer that leaves out or puts in so little is taken for the gold answer although it does not cover it
MORE_WORDS = 2  # of content beside the gold answer, or as many as it has itself
VERDICT_WORDS = 16  # that a yes or no may give as its reason

_YES_NO = {"yes": "no", "no": "yes"}
VERDICTS = frozenset(_YES_NO)  # as answers are normalised
_VERBS = ("is", "are", "was", "were", "do", "does", "did", "has", "have", "had", "ca", "wo", "would", "could", "should", "ai")
_DENIALS = frozenset(
    ("no", "not", "nope", "nah", "never", "neither", "nor", "cannot", "false", "wrong", "incorrect", "untrue", *(f"{v}nt" for v in _VERBS))
)
_DOUBTS = frozenset(
    "maybe perhaps possibly probably likely unlikely doubt doubtful hardly rarely barely scarcely might could guess "  # noqa: SIM905
    "unknown unsure uncertain unclear opposite".split()
)
_TAKEN_BACK = _DOUBTS.union(("actually", "partly", "part"))
_AGAINST = {"yes": _DENIALS | _TAKEN_BACK, "no": _TAKEN_BACK.union(("yes", "yeah", "yep", "yup", "affirmative"))}  # after the first word
# Beside the gold answer, these deny it, doubt it or give another one.
_HEDGES = _DENIALS.union(
    _DOUBTS,
    ("none", "and", "or", "either", "both"),
    ("but", "except", "excluding", "without", "instead", "rather", "unlike", "non", "alternatively", "plus", "versus", "vs"),
    # German, French, Portuguese, Russian, Chinese, Arabic
    ("nicht", "kein", "keine", "oder", "und", "pas", "ni", "ou", "n\u00e3o", "nem"),
    ("\u043d\u0435", "\u043d\u0435\u0442", "\u0438\u043b\u0438", "\u4e0d", "\u6ca1", "\u6216", "\u0644\u064a\u0633", "\u0623\u0648"),
)
# No content of their own.
_SMALL = frozenset("of in on at to is was were are it he she they that this by for from with as his her its their be who which".split())  # noqa: SIM905
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"
# Chinese, Japanese, Thai, Lao, Tibetan, Burmese, Khmer, Javanese and their kin do not put spaces between words: each character counts.
UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u1aaf\u1b00-\u1b7f\u3040-\u312f\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\ua980-\ua9ff"
    "\uaa00-\uaa7f\U00020000-\U0003ffff]"
)
_BOXED_OR_BRACE = re.compile(r"\\boxed\s?\{|[{}]")
_TOOL_TAGS = ("information", "tool_response", "experience")
# An unclosed block was cut off by the response length: all that follows it is tool text.
_TOOL_TEXT = re.compile("|".join(rf"<{tag}>.*?(?:</{tag}>|\Z)" for tag in _TOOL_TAGS), re.DOTALL)


@dataclass(frozen=True)
class Score:
    """The reward of an answer and its measures, each from 0 to 1."""

    reward: float
    acc: float  # the accuracy the reward is made of
    em: float
    f1: float
    cem: float
    concise: float
    format: float  # 1.0 when there is a well-formed answer

    @property
    def correct(self) -> bool:
        """Return whether the answer counts as a success when experience is distilled: it is covered, and concise."""
        return self.concise == 1.0


def score(prediction: str | None, answers: Sequence[str], kind: RewardKind = "concise", question: str = "") -> Score:
    """Return the score of an extracted answer; each measure is the best over the gold answers.

    Without a well-formed answer (None or blank) everything is 0. The question names the candidates that `concise` counts.

    Raises:
        HiExpError: there is no gold answer, or the kind is unknown.
    """
    if isinstance(answers, str) or not answers:
        raise HiExpError(f"cannot score against the gold answers {answers!r}; give a list with at least one text")
    if kind not in get_args(RewardKind):
        raise HiExpError(f"unknown reward {kind!r}; use one of {', '.join(get_args(RewardKind))}")
    if prediction is None or not prediction.strip():
        return Score(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    measures = {"em": em(prediction, answers), "f1": f1(prediction, answers), "cem": cem(prediction, answers)}
    measures["concise"] = concise(prediction, answers, question)
    acc = max(_pvpo(prediction, gold) for gold in answers) if kind == "pvpo" else measures[kind]
    reward = max(FORMAT_REWARD, acc) if kind in ("concise", "pvpo") else acc
    return Score(reward, acc, **measures, format=1.0)


def score_text(text: str, answers: Sequence[str], kind: RewardKind = "concise", question: str = "") -> Score:
    """Return the score of what a model wrote; answers inside tool text do not count."""
    return score(extract_answer(strip_tool_text(text)), answers, kind, question)


def em(prediction: str, answers: Sequence[str]) -> float:
    """Return 1.0 when the prediction equals a gold answer after normalisation (SQuAD: 3.5 is 35, "C++" is "C", "the Who" is "Who")."""
    return float(any(tokens(prediction) == tokens(gold) for gold in answers))


def f1(prediction: str, answers: Sequence[str]) -> float:
    """Return the best token F1; yes and no count only when the whole prediction is that word (HotpotQA)."""
    return max((_f1(tokens(prediction), tokens(gold)) for gold in answers), default=0.0)


def cem(prediction: str, answers: Sequence[str]) -> float:
    """Return 1.0 when a gold answer is covered by the prediction, whole tokens in order, after normalisation."""
    return float(any(_covers(tokens(prediction), tokens(gold)) for gold in answers))


def concise(prediction: str, answers: Sequence[str], question: str = "") -> float:
    """Return 1.0 when the prediction covers a gold answer, or nearly equals it, and says no more than that.

    More is a word that denies or hedges ("not", "or"), a list with another answer in it, another candidate of a question that names the
    gold answer, another number, and more than a few words of content. After a comma a place may stand that holds the answer, where the
    question asks for one. A prediction for a yes or no begins with it, gives a short reason at most and does not take it back.
    """
    prediction, *answers = (_INITIALS.sub(r"\1.", text) for text in (prediction, *answers))
    if _UNKNOWN.match(_plain(prediction)):
        answers = [gold for gold in answers if tokens(gold) != ["no"]]
    predicted = tokens(prediction)
    between = _BETWEEN if not question or _PLACE.search(question) else _BETWEEN_OR_COMMA
    parts = [part for written in between.split(_plain(prediction)) if (part := tokens(written))]
    return float(any(_same_signs(prediction, gold, question) and _concise(predicted, tokens(gold), question, parts) for gold in answers))


_INITIALS = re.compile(r"\b([^\W\d_])\.\s+(?=[^\W\d_]\.)")  # "J. K. Rowling" is "J.K. Rowling"
_UNKNOWN = re.compile(r"\W*no (?:\w+ )?(?:answer|clue|data|evidence|idea|info|information|mention|results?)\b", re.IGNORECASE)  # not a "no"
# Between answers: "Paris; Rome", "Paris & Rome". A comma may as well stand before a place that holds another.
_BETWEEN = re.compile(r"[;|\n\u3001\uff1b]|\s[&/+]\s|\b(?:as well as|along with|together with)\b")
_BETWEEN_OR_COMMA = re.compile(rf"{_BETWEEN.pattern}|,\s|[(\u2013\u2014]|\s-\s|(?<=\w{{4}})[.?!]\s")  # not "St. Louis"
_PLACE = re.compile(r"\b(?:where|(?:birth)?place|city|town|village|county|state|region|located|location)\b", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.,])([-+]?)(\d[\d,]*(?:\.\d+)?)(?![\w]|\.\d|,\d)")
# "C++", "5%", and "O-" of one or two letters: "Sava- a river" has a dash.
_MARKED = re.compile(r"\w[+#%]+(?!\w)|\b[^\W\d_]{1,2}-(?![\w-])")
_POWER = re.compile(r"(?<=\d)(?=[\u00b2\u00b3\u00b9\u2070-\u207b])")  # 10² is not 102
_PERCENT = re.compile(r"(?<=\d)\s*(?:%|per ?cent\b)")
_BLOOD = re.compile(r"\b(ab|[bo]|rh) (posi|nega)tive\b")


def _same_signs(prediction: str, gold: str, question: str) -> bool:
    """Return whether the numbers of a gold answer are in the prediction, with points, signs and powers, and "C++" is not "C".

    SQuAD's normalisation, which EM, F1 and CEM keep, drops such signs: there 3.5 is 35. The question may say "percent" for the answer.
    """
    percent = "" if re.search("per ?cent|%", question.lower()) else "%"
    prediction, gold = (_signed(text, percent) for text in (prediction, gold))
    numbers = Counter(_values(gold)) - Counter(_values(prediction))
    return not numbers and sorted(_MARKED.findall(gold)) == sorted(_MARKED.findall(prediction))


def _signed(text: str, percent: str) -> str:
    """Return the text in lower case, powers as "10^2", words for a sign as the sign; `percent` is that of percentages."""
    text = _PERCENT.sub(percent, unicodedata.normalize("NFKC", _POWER.sub("^", _plain(text))).lower())
    return _BLOOD.sub(lambda found: found[1] + "-+"[found[2] == "posi"], text)


def _values(text: str) -> list[float]:
    return [float(sign + number.replace(",", "")) for sign, number in _NUMBER.findall(text)]


def _concise(predicted: list[str], wanted: list[str], question: str, parts: list[list[str]]) -> bool:
    if predicted == wanted:
        return bool(wanted)
    if len(wanted) == 1 and wanted[0] in _YES_NO:
        taken_back = _AGAINST[wanted[0]].intersection(predicted[1:])
        return predicted[:1] == wanted and len(predicted) <= 1 + VERDICT_WORDS and not taken_back
    others = [part for part in parts if not set(part).intersection(wanted) and not _SMALL.issuperset(part)]
    if len(parts) > 1 and not all(any(map(str.isdecimal, part)) for part in others):
        return False  # a part of a list is another answer; numbers are looked at below
    more = list((Counter(predicted) - Counter(wanted)).elements())
    content = [word for word in more if word not in _SMALL]
    other = content and Counter(wanted) - Counter(predicted)  # in place of a word: "4th Lord Glamis" is not the 3rd
    if not (_covers(predicted, wanted) or (not other and _f1(predicted, wanted) >= CLOSE_F1)):
        return False
    if _HEDGES.intersection(more) or {"other", "than"} <= set(more):
        return False
    asked = tokens(question)
    # What stands in the question word for word is one candidate of it: "the Women's University v. Hogan" for its first part.
    one = f" {' '.join(predicted)} " in f" {' '.join(asked)} "
    candidates = _candidates(question, asked) if set(wanted) <= set(asked) and not one else set[str]()
    sizes = {_digits(word) for word in wanted if word.isdecimal()}
    candidates.update(word for word in more if word.isdecimal() and _digits(word) in sizes)  # another year, another day
    return not candidates.intersection(content) and len(content) <= max(MORE_WORDS, len(wanted))


def _digits(number: str) -> int:
    """Return how many digits a number has, two for one: the 3rd and the 14th are days alike, 14 and 1971 are not years alike."""
    return max(2, len(number))


def _candidates(question: str, asked: list[str]) -> set[str]:
    """Return the words of the names and numbers in a question, and those on both sides of "or" and "and"."""
    names = re.findall(r"\b[^\W_a-z][\w'.-]*", question)
    beside = (asked[i] for place, word in enumerate(asked) if word in ("or", "and") for i in (place - 1, place + 1) if 0 <= i < len(asked))
    return {*tokens(" ".join(names)), *beside}


def normalise(text: str) -> str:
    """Return the text in lower case, without punctuation, articles and extra spaces (SQuAD; punctuation of any script)."""
    text = unicodedata.normalize("NFKC", text).lower().replace("i\u0307", "i")  # of the Turkish capital
    kept = (c for c in text if c not in string.punctuation and unicodedata.category(c)[0] != "P")
    return " ".join(_ARTICLES.sub(" ", "".join(kept)).split())


def extract_answer(text: str) -> str | None:
    r"""Return the last complete ``<answer>...</answer>`` or ``\boxed{...}``, stripped and without sources; None where it is blank."""
    tagged, tagged_end = _last_tagged(text)
    boxed, boxed_end = _last_boxed(text)
    answer = tagged if tagged_end > boxed_end else boxed
    if answer is not None and (inner := _last_boxed(answer)[0]) is not None:
        answer = inner  # <answer>\boxed{5}</answer>
    return without_sources(answer or "") or None


# "Sources:" and the like, at the start of a further line or sentence; bounded, so that it is linear on any text.
_SOURCES = re.compile(
    r"(?:(?<=\n)[^\w\n]{0,8}|(?<=[.!?)\]*])[^\w\n]{1,8})(?:sources?|references?|citations?)[*_]{0,3}(?::|[^\S\n]{0,8}\n)", re.IGNORECASE
)


def without_sources(answer: str) -> str:
    """Return the answer without the sources that follow it, stripped."""
    return _SOURCES.split(answer.strip(), maxsplit=1)[0].strip()


def strip_tool_text(text: str) -> str:
    """Return the assistant's own words: the decoded text without search results, tool responses and experience."""
    return " ".join(own_words(text))


def blank_tool_text(text: str) -> str:
    """Return the text with line ends in place of every character that the assistant did not write: positions stay."""
    return _TOOL_TEXT.sub(lambda found: "\n" * len(found[0]), text)


def own_words(text: str) -> list[str]:
    """Return the assistant's own words before, between and after tool text."""
    return _TOOL_TEXT.split(text)


_LATEX_TEXT = re.compile(r"\\(?:(?:text|math)[a-z]*|emph|underline|operatorname|boxed|mbox|small|large|bf|it|rm)\s*\{([^{}]*)\}")
_LATEX_SIGN = re.compile(r"\\([%$&#_{} ])|\{(,)\}")  # of the text: 50\%, 1{,}000
# Formatting tags, what ends a turn, what opens or closes an answer.
_MARKUP = re.compile(
    r"</?(?:a|b|big|code|del|em|font|i|ins|kbd|li|mark|p|q|s|small|span|strong|sub|sup|tt|u|br|div|h[1-6]|ul|ol|answer)\b[^<>]{0,80}>"
    r"|<\|[^<>|\n]{0,80}\|>|<\uff5c[^<>\uff5c\n]{0,80}\uff5c>|<(?:eos|bos|pad|(?:start|end)_of_turn)>|\[/?INST\]",
    re.IGNORECASE,
)


def _plain(text: str) -> str:
    r"""Return the text without what formats it: ``\text{Sava}``, ``<b>Sava</b>``, ``&quot;Sava&quot;``, ``Sava<|im_end|>``."""
    text = _MARKUP.sub(" ", html.unescape(text)).replace("\u2212", "-")  # a minus
    if "\\" not in text and "{" not in text:
        return text
    text = _LATEX_SIGN.sub(r"\1\2", text)
    before = None
    while before != text:
        before, text = text, _LATEX_TEXT.sub(r"\1", text)
    return text


def tokens(text: str) -> list[str]:
    """Return the normalised words of an answer, and the characters of a script without spaces."""
    text = _plain(text)
    # "A" or "?" may be a gold answer; normalised it would equal an empty prediction, so its raw form is kept.
    return UNSPACED.sub(r" \g<0> ", normalise(text)).split() or text.lower().split()


def _pvpo(prediction: str, gold: str) -> float:
    predicted, wanted = tokens(prediction), tokens(gold)
    if len(predicted) >= LONG_ANSWER_RATIO * len(wanted):
        return _f1(predicted, wanted)
    return float(_covers(predicted, wanted))


def _f1(predicted: list[str], wanted: list[str]) -> float:
    if predicted != wanted and any(len(tokens) == 1 and tokens[0] in _YES_NO for tokens in (predicted, wanted)):
        return 0.0
    common = sum((Counter(predicted) & Counter(wanted)).values())
    return 2 * common / (len(predicted) + len(wanted)) if common else 0.0


def _covers(predicted: list[str], wanted: list[str]) -> bool:
    if not wanted:
        return False
    if len(wanted) == 1 and _YES_NO.get(wanted[0]) in predicted:
        return False  # "yes and no" would cover both
    return f" {' '.join(wanted)} " in f" {' '.join(predicted)} "


def _last_tagged(text: str) -> tuple[str | None, int]:
    """Return the body of the last complete answer tag and where it ends, or (None, -1)."""
    end = text.rfind(ANSWER_CLOSE)
    start = text.rfind(ANSWER_OPEN, 0, end) if end >= 0 else -1
    # After "<answer>a</answer></answer>" the opening that is nearest belongs to an earlier closing: still the last answer.
    if start < 0:
        return None, -1
    end = text.find(ANSWER_CLOSE, start)
    return text[start + len(ANSWER_OPEN) : end], end


def _last_boxed(text: str) -> tuple[str | None, int]:
    r"""Return the body of the last complete outermost ``\boxed{}`` and where it ends, or (None, -1); one pass."""
    body, end = None, -1
    opened: list[int] = []  # where the body of each open brace starts; negative for a brace that is not a box
    for token in _BOXED_OR_BRACE.finditer(text):
        if token.group() != "}":
            opened.append(token.end() if token.group() != "{" else -1)
        elif opened and (start := opened.pop()) >= 0:
            body, end = text[start : token.start()], token.start()
    return body, end
