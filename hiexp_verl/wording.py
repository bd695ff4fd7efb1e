"""What the wording of a question says: its shape, what it asks for; without politeness and other wrapping. English."""

import re
from typing import Literal

from hiexp_verl.text import word_set


def _cased(words: str) -> str:
    """Return a pattern for one of the words, in lower case but for the first letter: "Tell Me" may be a song."""
    return "|".join(f"[{word[0].upper()}{word[0]}]{word[1:]}" for word in words.split())


# "Please answer: ...", "I want to know ...", "Quick question: ...", "May I ask which ..." before what is asked.
POLITE = re.compile(
    rf"^\s*(?:(?:{_cased('please kindly hi hello hey yo greetings ok okay yes so now well thanks sorry quick quickly')}"
    rf"|{_cased('actually honestly exactly roughly approximately')}|[Ee]xcuse me)"
    r"(?: (?:there|all|everyone|everybody|guys|folks))?\b(?:\s*[,!.:;-]+|(?! (?:is|was|are|were)\b))\s*"
    r"|[Gg]ood (?:morning|afternoon|evening|day)[,!.]*\s*|(?:[A-Za-z]\w+ )?question(?: is)?\s*[:,-]\s*"
    r"|(?:[Aa]nswer|[Tt]rivia|Question|[Aa]nswer (?:this|the following)(?: question)?)\s*[:-]\s*"
    r"|(?:[Cc]an|[CcWw]ould|[Ww]ill) (?:you|someone|anyone) (?:please )?(?:tell|show|help|find|say|explain)(?: (?:me|us))?(?: out)?[,:]?\s+"
    r"|[Ww]ould you mind (?:telling|showing) (?:me|us)[,:]?\s+|[Ii]t would be (?:great|nice|good|helpful) to (?:know|learn|hear)[,:]?\s+"
    r"|(?:[Mm]ay|[Mm]ight|[Cc]an|[Cc]ould) I (?:please )?(?:ask|know)(?: you)?[,:]?\s+"
    r"|(?:[Ii]|[Ww]e)(?:'d| would)? (?:want|need|like|wish)(?: to (?:know|learn|find out|ask))?[,:]?\s+"
    r"|(?:[Ii](?: a|'| wa)[ms] )?(?:[Jj]ust )?(?:[Ww]ondering|[Cc]urious)[,:]?\s+|[Ii] wonder[,:]?\s+"
    r"|(?:[Dd]o you have )?[Aa]ny (?:idea|clue|guess)(?: of| about)?[,:]?\s+|[Qq]uick one\s*[:,-]\s*"
    r"|(?:[Pp]lease )?[Hh]elp me(?: to)? (?:find|find out|figure out|understand|identify|remember)[,:]?\s+"
    r"|[Ii](?: a|')m (?:trying|looking) to (?:find out|find|figure out|learn|remember|know)[,:]?\s+"
    r"|[Ii] (?:forgot|forget|do not know|don['\u2019]t know|can(?:no|['\u2019])t remember)[,:]?\s+"
    r"|[Dd]oe?s? (?:you|anyone|anybody) (?:happen to )?know[,:]?\s+"
    r"|(?:[Jj]ust )?(?:[Tt]ell|[Gg]ive|[Ss]how|[Rr]emind) (?:me|us)[,:]?\s+|[Ll]et me (?:know|ask)[,:]?\s+|[Ff]ind out[,:]?\s+)+"
    r"(?=(?i:(?:in |on |at |from |by |of |for |to |with )?"
    r"(?:what|which|who|whom|whose|when|where|why|how|if|whether|is|are|was|were|do|does|did|has|have|had|the|name|list|state)\b))"
)
_SHORT_IS = re.compile(r"\b(what|who|where|when|how|which|why|that|it)['\u2019](s|re|d)\b", re.IGNORECASE)
_LONG = {"s": "is", "re": "are", "d": "would"}
# A note such as "(1979 Film)" is one as "(1979 film)" is.
_NOTE = re.compile(
    r"\((?:\d{4} )?(?:[A-Z][a-z]+ ){0,3}(?:Film|Movie|Album|Song|Single|Novel|Book|Play|Band|Opera|Series|Show|Game|Magazine|Painting)\)"
)
_ENGLISH = word_set("what which who whom whose when where why how the of are were did does could would can have than by with from and")


def is_english(question: str) -> bool:
    """Return whether a question has one of the words that most English questions have; few in another language have one."""
    return not _ENGLISH.isdisjoint(re.findall(r"\w+", question.lower()))


def plain(question: str) -> str:
    """Return the question on one line without politeness, with "is" for "'s", and with notes such as "(1979 Film)" in lower case."""
    text = " ".join(question.split())
    if polite := POLITE.match(text):
        text = text[polite.end() :]
        text = text[:1].upper() + text[1:]
    text = _SHORT_IS.sub(lambda short: f"{short[1]} {_LONG[short[2].lower()]}", text)
    return _NOTE.sub(lambda note: note[0].lower(), text)


# compare: which of two; common: what two share; verify: yes or no; indirect: the thing is described, not named.
Shape = Literal["compare", "common", "verify", "indirect", "direct"]

_VERIFY = re.compile(r"^(?:are|is|was|were|do|does|did|has|have|had|can|could)\b", re.IGNORECASE)
_SHARE = r"\bshared\b|(?<!\bthe )(?<!\ba )\bshare\b(?! of\b)"  # not "the share of forest"
_COMMON = re.compile(rf"\bin common\b|{_SHARE}|\bboth\b.*\b(?:what|which)\b|\b(?:what|which)\b.*\bboth\b", re.IGNORECASE)
_RANKED = "(?:first|last|earlier|later|older|younger)"
_COMPARE = re.compile(
    r"\b(?:which|who|whose|what|where)\b.*\b(?:\w{3,}er|first|more|less|longest|same|different|most|long|last|elder)\b.*\bor\b"
    rf"|^who\b.*\b{_RANKED} (?:out )?of\b.*\band\b|^(?:was|is|did|were|are|has)\b.*\bor\b.*\b{_RANKED}\W*$",  # "Was X or Y born first?"
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
    r"|between|through|into|along|over|under|across|near|the|a|an|this|both|X|Y)\b|[?,.]|$)"
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
_OBJECT = re.compile(r" (?:X|Y|the|an?|this|both|through|into|along|over|under|across)\b")
_FILLERS = word_set("exact full original other very same")
_VERB = re.compile(
    r"represents?|\w{3,}ed|won|wins|wrote|made|sang|plays?|holds?|covers?|features?|comes?|serves?|along|lies?|lying|flow(?:s|ing)?|borders?|belongs?|contains?|stands?|became|led"
    r"|came|began|born|written|fought|built|about"
)
_AT = re.compile(r" (?:in|on|at|for|from|by|with|to)\b")
_RELATIVE = re.compile(r"\b(?:that|which|who|whom|whose|where)\b")
_OTHER_VERB = re.compile(rf"\b(?:is|are|was|were|did|do|does|has|have|had|can|could|sold|{_VERB.pattern})\b")
_NOT_ASKED = word_set(
    """
    of what which is was are were one be do does did the both it that formerly known referred have has had and or else common
    """
)


def shape_of(question: str) -> Shape:
    """Return the shape of a question (names already masked or not)."""
    question = plain(question)
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
    masked_question = plain(masked_question)
    if _VERIFY.match(masked_question) and not _COMPARE.search(masked_question):
        return "yes or no"
    match = _ASKED.search(masked_question)
    if match:
        words = [word for word in match[1].lower().split() if word not in _FILLERS and len(word) > 1]
        words = words[: next((i for i, word in enumerate(words) if i and _VERB.fullmatch(word)), len(words))]
        # "which country borders X": a word in -s before a name or an article is a verb; "which sports did X": a noun. Before "in" it is a
        # verb where the clause has no other: "which actor stars in X", but "which works by X were banned".
        after = masked_question[match.end() :]
        only = _AT.match(after) and not _OTHER_VERB.search(match[0] + _RELATIVE.split(after)[0])
        if len(words) > 1 and words[-1].endswith("s") and (only or _OBJECT.match(after)):
            words = words[:-1]
        if words and not _VERB.fullmatch(words[0]) and not _NOT_ASKED.intersection(words) and not words[-1].endswith(("ed", "ly", "s's")):
            return " ".join(words[-2:])
    return next((noun for pattern, noun in _SIMPLE if re.search(pattern, masked_question, re.IGNORECASE)), "answer")
