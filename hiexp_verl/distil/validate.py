"""What a draft must be before it becomes an entry. Each refusal has a name and is counted.

Whether a text fits its own question more than others is measured by cosine, as retrieval compares them.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hiexp_verl.distil.draft import Draft, Redact, clean, fit
from hiexp_verl.distil.rules import advice_for, advice_over
from hiexp_verl.domains.diagnosis import Diagnosis
from hiexp_verl.domains.domain import Domain
from hiexp_verl.masking import redact
from hiexp_verl.models.encoder import Vectors
from hiexp_verl.scoring import normalise, tokens
from hiexp_verl.text import main_words, spaced, word_set
from hiexp_verl.types import Entry, Level

PERCENTILE = 90.0
COPY = 0.7  # share of common words from which a description is the question once more
MIN_TITLE_WORDS, MIN_DESCRIPTION_WORDS = 2, 4
_MOST_OTHERS = 1_000  # a percentile needs no more
_ONE_CASE = re.compile(
    r"\b(?:in this case|in this example|this question|the question asks for the|for example, search for"
    r"|the (?:failed|successful) attempt|the named one)\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\b\d{3,}\b")
_PLACEHOLDER = re.compile(r"\b[XYZW]\b")  # of a masked name: means nothing in advice
_CAPITALISED = re.compile(r"(?<=[a-z0-9,;] )[^\W\d_a-z]\w+")
# Advice to put two things into one query, and words that turn it into advice against that.
_JOINS = re.compile(r"\bcombin|\btogether\b|\bin one query\b", re.IGNORECASE)
_PARTS = re.compile(
    r"\bseparate|\bon its own\b|\balone\b|\beach\b|\bone by one\b|\bindividually\b|\bnot\b|n't\b|\bavoid|\bnever\b", re.IGNORECASE
)
_REPEATS = re.compile(r"\b(?:again|once more) with the same\b|\brepeat (?:the|that|your) (?:same )?(?:query|search)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.;!]) ")


def evenly_spaced(count: int, most: int) -> slice:
    """Return the slice that takes at most `most` of `count` rows, evenly spaced over all."""
    return slice(None, None, max(1, -(-count // most)))


def chance(scores_M: NDArray[np.float32], are_others_M: NDArray[np.bool_], percentile: float) -> float:
    """Return that percentile of the scores with the other rows; minus infinity without any."""
    return float(np.percentile(scores_M[are_others_M], percentile)) if are_others_M.any() else -np.inf


def closer_than_chance(texts_N_D: Vectors, targets_N_D: Vectors) -> NDArray[np.bool_]:
    """Return which texts are specific: closer to their own target than to most targets of other texts.

    A text passes when its cosine with its own target reaches the `PERCENTILE` of its cosines with the other targets. The title
    "Finding the right information" fails: it is as close to any question as to its own, and would be retrieved by chance.

    Args:
        texts_N_D: unit vectors of the texts.
        targets_N_D: unit vectors of their targets: the kind of question for a title, the advice by rules for a description.
    """
    sample_M_D = targets_N_D[evenly_spaced(len(targets_N_D), _MOST_OTHERS)]
    scores_N_M = texts_N_D @ sample_M_D.T
    own_N = np.einsum("nd,nd->n", texts_N_D, targets_N_D)
    others_N_M = targets_N_D @ sample_M_D.T < 0.999  # the same target is not another one
    return own_N >= np.array([chance(scores_M, others_M, PERCENTILE) for scores_M, others_M in zip(scores_N_M, others_N_M, strict=True)])


def admit(draft: Draft, d: Diagnosis, domain: Domain) -> Draft | str:
    """Return the draft of an E1, cleaned, as it enters the HEK, or why it does not."""
    cleaned = clean(draft, d.masker, d.answers, d.question, domain.redact)
    return (refusal(cleaned, d, domain) or cleaned) if cleaned is not None else "nothing_left"


def refusal(draft: Draft, d: Diagnosis, domain: Domain) -> str:
    """Return why a cleaned draft of an E1 is not admitted, or an empty string.

    Too short: a title of one word matches anything, and advice of three words says nothing. Half a sentence: the head of the
    advice went into the title. Copy: it repeats the question. Answer: it survived redaction, in another spelling. One case:
    names, numbers and "in this case" help with no other question. Mistake: it advises what was the finding. Script: retrieval
    compares it with questions of the data, so it must be written in theirs.
    """
    text = draft.description
    repeats_query = "repeated_query" in (d.finding, *d.also) and any(
        _REPEATS.search(sentence) and not _PARTS.search(sentence) for sentence in _SENTENCE_END.split(text)
    )
    checks = {
        "too_short": _is_short(draft),
        "half_sentence": _begins_inside(text, advice_for(d, domain).description),
        "copies_question": repeats(text, d.question),
        "tells_answer": tells(f"{draft.title}\n{text}", d.question, d.answers, domain.redact),
        "one_case": _names_any(text, d) or _is_one_case(text),
        "advises_mistake": repeats_query or (d.finding == "two_in_one_query" and _joins(text)),
        "other_script": script_of(text) != script_of(d.question),
    }
    return next((reason for reason, holds in checks.items() if holds), "")


def admit_summary(draft: Draft, members: Sequence[Entry], level: Level, domain: Domain) -> Draft | str:
    """Return the draft of an E2 or E3, cleaned, as it enters the HEK, or why it does not.

    Its members are free of names and answers: a name that they do not have is invented. A summary that copies one member, or
    has a word that only one member's title has and general advice lacks, is about that one alone.
    """
    draft = fit(draft)
    text = draft.description
    of_members = "\n".join(f"{member.title}\n{member.description}" for member in members)
    known = set(normalise(of_members).split())
    in_titles = Counter(word for member in members for word in main_words(member.title))
    of_one_title = {word for word, count in in_titles.items() if count == 1 and len(members) > 1}
    joined = 2 * sum("two_in_one_query" in member.findings for member in members) > len(members)
    checks = {
        "nothing_left": len(draft.title) <= 3 or len(text) <= 10,
        "copies_member": any(repeats(text, member.description) for member in members),
        "too_short": _is_short(draft),
        "one_case": _is_one_case(text),
        "advises_mistake": joined and _joins(text),
        "other_script": script_of(text) != script_of(of_members),
        "new_name": any(normalise(name) not in known for name in _CAPITALISED.findall(text)),
        "one_member": bool((main_words(text) & of_one_title) - main_words(advice_over(members, level, domain).description)),
    }
    return next((reason for reason, holds in checks.items() if holds), draft)


def _is_short(draft: Draft) -> bool:
    return len(tokens(draft.title)) < MIN_TITLE_WORDS or len(tokens(draft.description)) < MIN_DESCRIPTION_WORDS


def _begins_inside(text: str, advice: str) -> bool:
    """Whether the text begins in the middle of a clause of the advice."""
    before, found, _ = advice.casefold().partition(_SENTENCE_END.split(text)[0].casefold())
    return bool(found and before) and before.rstrip()[-1:] not in ",;:."


def _is_one_case(text: str) -> bool:
    return any(pattern.search(text) for pattern in (_ONE_CASE, _NUMBER, _PLACEHOLDER))


def _joins(text: str) -> bool:
    return bool(_JOINS.search(text)) and not _PARTS.search(text)


def is_advice(draft: Draft) -> bool:
    """Whether the title is advice instead of a kind of question: the description repeats it."""
    return f" {normalise(draft.title)} " in f" {normalise(draft.description)} "


def repeats(text: str, other: str, share: float = COPY) -> bool:
    """Whether two texts have that share of all their words in common."""
    mine, theirs = _words(text), _words(other)
    return len(mine & theirs) >= share * len(mine | theirs)


def _words(text: str) -> frozenset[str]:
    return word_set(spaced(normalise(text)))


def is_part_of(text: str, longer: str) -> bool:
    """Whether most words of a text are words of the longer one."""
    mine, theirs = _words(text), _words(longer)
    return len(mine & theirs) >= COPY * len(mine)


def script_of(text: str) -> str:
    """Return the script of most letters ("LATIN", "CJK", "CYRILLIC", ...), or an empty string for a text without letters."""
    names = Counter(unicodedata.name(letter, "").partition(" ")[0] for letter in text if letter.isalpha())
    return names.most_common(1)[0][0] if names else ""


def tells(text: str, question: str, answers: Sequence[str], redact: Redact = redact) -> bool:
    """Whether the text gives an answer away: has one that the question does not have; `redact` is the domain's."""
    return redact(text, answers, question) != text


def _names_any(text: str, d: Diagnosis) -> bool:
    """Whether the text has a capitalised name of the question or of a query, in its own spelling."""
    queries = (*d.failed.queries, *(d.succeeded.queries if d.succeeded is not None else ()))
    names = {name for source in (d.question, *queries) for name in d.masker.names(source) if len(name) > 3 and not name.islower()}
    return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) for name in names)
