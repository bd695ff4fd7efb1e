"""What a draft must be before it becomes an entry. Each refusal has a name and is counted.

Whether a text fits its own question more than others is measured by cosine, as retrieval compares them.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hiexp_verl.distil.diagnose import Diagnosis
from hiexp_verl.distil.draft import Draft, clean, fit
from hiexp_verl.distil.rules import advice_for, advice_over
from hiexp_verl.masking import pattern_of
from hiexp_verl.models.encoder import Vectors
from hiexp_verl.scoring import normalise
from hiexp_verl.text import main_words
from hiexp_verl.types import Entry, Level

PERCENTILE = 90.0
_MOST_STRANGERS = 1_000  # a percentile needs no more


def evenly_spaced(count: int, most: int) -> slice:
    """Return what takes at most `most` of `count` rows, evenly spaced over all."""
    return slice(None, None, max(1, -(-count // most)))


def chance(scores_M: NDArray[np.float32], are_strangers_M: NDArray[np.bool_], percentile: float) -> float:
    """Return that percentile of the scores with unrelated rows; minus infinity without any."""
    return float(np.percentile(scores_M[are_strangers_M], percentile)) if are_strangers_M.any() else -np.inf


def closer_than_chance(texts_N_D: Vectors, wanted_N_D: Vectors, percentile: float = PERCENTILE) -> NDArray[np.bool_]:
    """Return which texts are specific: closer to their own target than to most targets of other texts.

    A text passes when its cosine with its own target reaches the given percentile of its cosines with the other targets. The
    title "Finding the right information" fails: it is as close to any question as to its own, and would be retrieved by chance.

    Args:
        texts_N_D: unit vectors of the texts.
        wanted_N_D: unit vectors of their targets: the kind of question for a title, the advice by rules for a description.
        percentile: of the cosines with other targets.
    """
    others_M_D = wanted_N_D[evenly_spaced(len(wanted_N_D), _MOST_STRANGERS)]
    scores_N_M = texts_N_D @ others_M_D.T
    own_N = np.einsum("nd,nd->n", texts_N_D, wanted_N_D)
    # Those of whom the very same is wanted are no strangers.
    strangers_N_M = wanted_N_D @ others_M_D.T < 0.999
    chance_N = [chance(scores_M, strangers_M, percentile) for scores_M, strangers_M in zip(scores_N_M, strangers_N_M, strict=True)]
    return own_N >= np.array(chance_N)


MIN_TITLE_WORDS, MIN_DESCRIPTION_WORDS = 2, 4
_NOTHING_LEFT, _IS_ONE_CASE, _MISTAKE = "nothing_left", "one_case", "advises_mistake"
COPY = 0.7  # share of common words from which a description is the question once more
_ONE_CASE = re.compile(
    r"\b(?:in this case|in this example|this question|the question asks for the|for example, search for"
    r"|the (?:failed|successful) attempt|the named one)\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\b\d{3,}\b")
# Letters that stand for masked names mean nothing to whoever reads the advice.
_PLACEHOLDER = re.compile(r"\b[XYZW]\b")
_CAPITALISED = re.compile(r"(?<=[a-z0-9,;] )[^\W\d_a-z]\w+")
# Advice against putting two things into one query that recommends it: small models turn the sense around.
_JOINS = re.compile(r"\bcombin|\btogether\b|\bin one query\b", re.IGNORECASE)
_PARTS = re.compile(
    r"\bseparate|\bon its own\b|\balone\b|\beach\b|\bone by one\b|\bindividually\b|\bnot\b|n't\b|\bavoid|\bnever\b", re.IGNORECASE
)

_REPEATS = re.compile(r"\b(?:again|once more) with the same\b|\brepeat (?:the|that|your) (?:same )?(?:query|search)", re.IGNORECASE)


def admit(draft: Draft, d: Diagnosis) -> Draft | str:
    """Return the draft of an E1, cleaned, as it enters the HEK, or why it does not."""
    cleaned = clean(draft, d.masker, d.answers, d.question)
    return (refusal(cleaned, d) or cleaned) if cleaned is not None else _NOTHING_LEFT


def admit_summary(draft: Draft, members: Sequence[Entry], level: Level) -> Draft | str:
    """Return the draft of an E2 or E3, cleaned, as it enters the HEK, or why it does not.

    Its members are free of names and answers; what a summary names beyond their words it has made up. A summary that says
    what one member says already, or names what only one member's title does, is about that one alone.
    """
    fitted = fit(draft)
    if len(fitted.title) <= 3 or len(fitted.description) <= 10:
        return _NOTHING_LEFT
    texts = "\n".join(f"{member.title}\n{member.description}" for member in members)
    joined = 2 * sum("two_in_one_query" in member.findings for member in members) > len(members)
    if any(repeats(fitted.description, member.description) for member in members):
        return "copies_member"
    reason = _too_short(fitted) or _one_case(fitted) or _against_parts(fitted, joined) or _other_script(fitted, texts)
    if not reason and _new_names(fitted.description, texts):
        reason = "new_name"
    if not reason and _particulars(fitted, members, advice_over(members, level)):
        reason = "one_member"
    return reason or fitted


def refusal(draft: Draft, d: Diagnosis) -> str:
    """Return why a cleaned draft of an E1 is not admitted, or an empty string.

    Too short: a title of one word matches anything, and advice of three words says nothing. Copy: it repeats the question
    instead of advising. Answer: it survived redaction, in another spelling. One case: names, numbers and "in this case"
    help with no other question. Against the finding: it advises the very mistake. Language: retrieval compares it with
    questions of the data, so it must be written in their script. Half a sentence: the head of the advice went into the title.
    """
    if reason := _too_short(draft):
        return reason
    if _begins_inside(draft.description, advice_for(d).description):
        return "half_sentence"
    if repeats(draft.description, d.question):
        return "copies_question"
    if tells(f"{draft.title}\n{draft.description}", d.question, d.answers):
        return "tells_answer"
    if _names_any(draft.description, d):
        return _IS_ONE_CASE
    if "repeated_query" in (d.finding, *d.also) and _advises_repetition(draft.description):
        return _MISTAKE
    return _one_case(draft) or _against_parts(draft, d.finding == "two_in_one_query") or _other_script(draft, d.question)


def _too_short(draft: Draft) -> str:
    short = len(normalise(draft.title).split()) < MIN_TITLE_WORDS or len(normalise(draft.description).split()) < MIN_DESCRIPTION_WORDS
    return "too_short" if short else ""


def _begins_inside(text: str, advice: str) -> bool:
    """Whether the text begins in the middle of a clause of the advice: a model has put the head into the title."""
    before, found, _ = advice.casefold().partition(re.split(r"(?<=[.;!]) ", text)[0].casefold())
    return bool(found and before) and before.rstrip()[-1:] not in ",;:."


def _one_case(draft: Draft) -> str:
    text = draft.description
    return _IS_ONE_CASE if _ONE_CASE.search(text) or _NUMBER.search(text) or _PLACEHOLDER.search(text) else ""


def _against_parts(draft: Draft, joined: bool) -> str:
    """Refuse advice to join two things in one query where just that was the mistake."""
    return _MISTAKE if joined and _JOINS.search(draft.description) and not _PARTS.search(draft.description) else ""


def _advises_repetition(text: str) -> bool:
    """Whether a sentence advises to repeat a query, and does not advise against it."""
    return any(_REPEATS.search(sentence) and not _PARTS.search(sentence) for sentence in re.split(r"(?<=[.;!]) ", text))


def _other_script(draft: Draft, of: str) -> str:
    return "other_script" if script_of(draft.description) != script_of(of) else ""


def _new_names(text: str, other: str) -> list[str]:
    """Return the names in the text (capitalised inside a sentence) whose words the other text does not have."""
    words = set(normalise(other).split())
    return [name for name in _CAPITALISED.findall(text) if normalise(name) not in words]


def _particulars(draft: Draft, members: Sequence[Entry], general: Draft) -> frozenset[str]:
    """Return the words of a summary that stand in the title of one member alone, and are none of general advice."""
    holders = Counter(word for member in members for word in main_words(member.title))
    alone = {word for word, count in holders.items() if count == 1 and len(members) > 1}
    return (main_words(draft.description) & alone) - main_words(general.description)


def is_advice(draft: Draft) -> bool:
    """Whether the title is advice instead of a kind of question: the description repeats it."""
    return f" {normalise(draft.title)} " in f" {normalise(draft.description)} "


def repeats(text: str, other: str, share: float = COPY) -> bool:
    """Whether two texts are made of the same words, for the most part: they have that share of all their words in common."""
    mine, theirs = set(normalise(text).split()), set(normalise(other).split())
    return len(mine & theirs) >= share * len(mine | theirs)


def is_part_of(text: str, longer: str) -> bool:
    """Whether most words of a text are words of the longer one."""
    mine, theirs = set(normalise(text).split()), set(normalise(longer).split())
    return len(mine & theirs) >= COPY * len(mine)


def script_of(text: str) -> str:
    """Return the script of most letters ("LATIN", "CJK", "CYRILLIC", ...), or an empty string for a text without letters."""
    names = Counter(unicodedata.name(letter, "").partition(" ")[0] for letter in text if letter.isalpha())
    return names.most_common(1)[0][0] if names else ""


def tells(text: str, question: str, answers: Sequence[str]) -> bool:
    """Whether the text holds an answer that the question itself does not."""
    given = f" {normalise(question)} "
    telling = [answer for answer in answers if f" {normalise(answer)} " not in given and normalise(answer) not in ("yes", "no", "")]
    return any(pattern_of(answer).search(text) for answer in telling)


def _names_any(text: str, d: Diagnosis) -> bool:
    """Whether the text holds a capitalised name of the question or of a query, in its own spelling."""
    queries = (*d.failed.queries, *(d.succeeded.queries if d.succeeded is not None else ()))
    names = {name for source in (d.question, *queries) for name in d.masker.names(source) if len(name) > 3 and not name.islower()}
    return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) for name in names)
