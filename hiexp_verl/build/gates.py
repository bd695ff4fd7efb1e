"""What a draft must be before it becomes an entry. Each refusal has a name and is counted."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from hiexp_verl.build.diagnose import Diagnosis
from hiexp_verl.build.draft import Draft, clean
from hiexp_verl.build.mask import pattern_of
from hiexp_verl.scoring import normalise

MIN_TITLE_WORDS, MIN_DESCRIPTION_WORDS = 2, 4
COPY = 0.7  # share of common words from which a description is the question once more
_ONE_CASE = re.compile(
    r"\b(?:in this case|in this example|this question|the question asks for the|for example, search for)\b", re.IGNORECASE
)
_NUMBER = re.compile(r"\b\d{3,}\b")
# A title that gives advice does not say when the advice applies, and matches any query or none.
_ADVICE = re.compile(
    r"^(?:how to|guide|use|using|paste|pasting|(?:do not|don't|never|always|avoid|search|find|look|combin|read|check|quer|repeat"
    r"|answer|separat|analy[sz]|cover|get|mak[ei]|miss|review|ask|verif|ensur|focus|includ|revers|identif|resolv|determin"
    r"|understand|start|split|compar[ei])\w*)\b",
    re.IGNORECASE,
)
# Advice against putting two things into one query that speaks for it: small models turn the sense around.
_JOINS = re.compile(r"\bcombin|\btogether\b|\bin one query\b", re.IGNORECASE)
_PARTS = re.compile(
    r"\bseparate|\bon its own\b|\balone\b|\beach\b|\bone by one\b|\bindividually\b|\bnot\b|n't\b|\bavoid|\bnever\b", re.IGNORECASE
)


def admit(draft: Draft, d: Diagnosis) -> Draft | str:
    """Return the draft, cleaned, as it enters the HEK, or why it does not.

    A title that names no situation is replaced by the kind of question, which is computed.
    """
    cleaned = clean(draft, d.masker, d.answers, d.question)
    if cleaned is None:
        return "nothing left after cleaning"
    if _ADVICE.match(cleaned.title):
        cleaned = clean(replace(cleaned, title=d.kind_of_question), d.masker, d.answers, d.question) or cleaned
    return refusal(cleaned, d) or cleaned


def refusal(draft: Draft, d: Diagnosis) -> str:
    """Return why a cleaned draft is not admitted, or an empty string.

    Too short: a title of one word matches anything, and advice of three words says nothing. Copy: it repeats the question
    instead of advising. Answer: it survived redaction, in another spelling. One case: names, numbers and "in this case"
    help with no other question. Against the finding: it advises the very mistake. Language: retrieval compares it with
    questions of the data, so it must be written in their script.
    """
    words = normalise(draft.description).split()
    if len(normalise(draft.title).split()) < MIN_TITLE_WORDS or len(words) < MIN_DESCRIPTION_WORDS:
        return "too short"
    if repeats(draft.description, d.question):
        return "copies the question"
    if tells(f"{draft.title}\n{draft.description}", d.question, d.answers):
        return "tells the answer"
    if _ONE_CASE.search(draft.description) or _NUMBER.search(draft.description) or _names_any(draft.description, d):
        return "speaks of one case"
    if d.finding == "two_in_one_query" and _JOINS.search(draft.description) and not _PARTS.search(draft.description):
        return "advises the mistake"
    if script_of(draft.description) != script_of(d.question):
        return "another script than the question's"
    return ""


def repeats(text: str, question: str) -> bool:
    """Whether two texts are made of the same words, for the most part."""
    mine, theirs = set(normalise(text).split()), set(normalise(question).split())
    return len(mine & theirs) >= COPY * len(mine | theirs)


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
