"""What kind of question is it, and what does it ask for? Read off the wording, no model."""

import re
from typing import Literal

from hiexp_verl.words import word_set

# compare: which of two; common: what two share; verify: yes or no; indirect: the thing is described, not named.
Shape = Literal["compare", "common", "verify", "indirect", "direct"]

_VERIFY = re.compile(r"^(?:are|is|was|were|do|does|did|has|have|had|can|could)\b", re.IGNORECASE)
_COMMON = re.compile(r"\bin common\b|\bshared?\b|\bboth\b.*\b(?:what|which)\b|\b(?:what|which)\b.*\bboth\b", re.IGNORECASE)
_COMPARE = re.compile(
    r"\b(?:which|who|whose|what|where)\b.*\b(?:\w{3,}er|first|more|less|longest|same|different|most|long|last|elder)\b.*\bor\b",
    re.IGNORECASE,
)
# A relative clause, or a chain of two "of": the question goes through something that it does not name.
_INDIRECT = re.compile(
    r"\bwhose\b|\b\w+ (?:that|who|where|which) (?:\w+ )?\w+"
    r"|\bof the \w+(?: \w+)?(?: \w+)? (?:of|in|by|based|located|born|where|published|founded)\b"
    r"|\b(?:father|mother|wife|husband|spouse|director|author|founder|performer|composer|country|city|company|birthplace) of the \w+ ",
    re.IGNORECASE,
)
_STOP = (
    r"(?= (?:of|in|on|at|for|from|by|with|to|that|who|which|whose|where|did|does|do|is|was|are|were|has|have|had|can|could"
    r"|between|the|a|an|this|both|X|Y)\b|[?,.]|$)"
)
_ASKED = re.compile(
    r"(?:\b(?:what|which)|^whose)(?: (?:kind|type|sort) of)? (?:(?:is|was|are|were) )?(?:the |a |an )?(?:(?:name|title) of the |shared )?"
    r"((?:[a-z][\w-]* ){0,3}?[a-z][\w-]*?)" + _STOP,
    re.IGNORECASE,
)
_SIMPLE = (
    (r"\bhow (?:many|much)\b", "number"),
    (r"\bhow old\b", "age"),
    (r"\bhow (?:long|far|tall|high|large|big)\b", "measure"),
    (r"^(?:in |on |by )?(?:when|what year|what date)\b", "date"),
    (r"^(?:from )?where\b", "place"),
    (r"^(?:by |with |to |for )?(?:who|whom)\b|, who\b", "person"),
    (r"\bwhy\b", "reason"),
)
_FILLERS = word_set("exact full original other very same")
_VERB = re.compile(
    r"represents?|\w{3,}ed|won|wins|wrote|made|sang|plays?|holds?|covers?|features?|comes?|serves?|along|lies|became|led"
    r"|came|began|born|written|fought|built|about"
)
_NOT_ASKED = word_set(
    """
    of what which is was are were one be do does did the both it that formerly known referred have has had and or else common
    """
)


def shape_of(question: str) -> Shape:
    """Return the shape of a question (names already masked or not)."""
    if _COMPARE.search(question):
        return "compare"
    if _COMMON.search(question):
        return "common"
    if _VERIFY.match(question.strip()):
        return "verify"
    return "indirect" if _INDIRECT.search(question) else "direct"


def asked_for(masked_question: str) -> str:
    """Return the noun that names what is asked for ("capital", "date", "person"), or "answer" when the wording hides it.

    Give the question with its names masked, so that the noun cannot be one.
    """
    if _VERIFY.match(masked_question.strip()):
        return "yes or no"
    match = _ASKED.search(masked_question)
    if match:
        words = [word for word in match[1].lower().split() if word not in _FILLERS and len(word) > 1]
        words = words[: next((i for i, word in enumerate(words) if i and _VERB.fullmatch(word)), len(words))]
        if words and not _VERB.fullmatch(words[0]) and not _NOT_ASKED.intersection(words) and not words[-1].endswith(("ed", "ly", "s's")):
            return " ".join(words[-2:])
    return next((noun for pattern, noun in _SIMPLE if re.search(pattern, masked_question, re.IGNORECASE)), "answer")
