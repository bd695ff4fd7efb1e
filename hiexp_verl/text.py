"""Text that a model wrote is untrusted: make it safe before it enters a prompt."""

import re
import unicodedata

# Chat-template control tokens (<|im_start|>, <|endoftext|>, ...), sentence markers, instruction brackets.
_CONTROL = re.compile(
    r"<\|[^<>|\n]{0,80}\|>|<\uff5c[^<>\uff5c\n]{0,80}\uff5c>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>"
    r"|\[e~\[|\]~!?b[\[\]]"
)
# Whatever else a tokenizer may know as one token (<repo_name>, <unused7>, [TOOL_CALLS], [gMASK]): a space after the bracket makes it
# words. Ordinary text has such forms, too ([sic]), and keeps them.
_LIKE_A_TOKEN = re.compile(r"<(?=[^\s<>]{1,80}>)|\[(?=/?[A-Za-z]\w{1,80}\])")
# Tags that the agent, its parsers or our own prompts give a meaning to.
_TAGS = re.compile(
    r"</?\s*(?:search|information|answer|think|tool_call|tool_response|tools|experience|documents?|function)\b[^<>]{0,200}>",
    re.IGNORECASE,
)
_BOXED = re.compile(r"\\boxed\b")


def sanitise(text: str, max_chars: int) -> str:
    """Return the text on one line without control tokens, tags with a meaning, or control characters.

    Removal is repeated until nothing changes, so that pieces cannot be nested to survive it. What is left is plain text to
    every tokenizer: it makes no special token of it.
    """
    text = printable(unicodedata.normalize("NFKC", text))
    before = None
    while before != text:
        before = text
        text = _BOXED.sub("", _TAGS.sub("", _CONTROL.sub("", text)))
    text = re.sub(r"\s+", " ", _LIKE_A_TOKEN.sub(r"\g<0> ", text)).strip()
    return text if len(text) <= max_chars else text[: max_chars - 3].rsplit(" ", 1)[0] + "..."


def printable(text: str) -> str:
    """Return the text with a space for every control, format and line-break character: it cannot steer a terminal."""
    if text.isprintable():  # none of these is, and nearly every text is: twenty times as fast
        return text
    return "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in text)
