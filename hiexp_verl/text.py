"""Text of messages, sanitised for a prompt; its words; queries that ask the same. Pure functions."""

import json
import re
import unicodedata
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from hiexp_verl.errors import HiExpError
from hiexp_verl.scoring import UNSPACED, normalise
from hiexp_verl.types import Message

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


def text_of(message: Message) -> str:
    """Return the text of a message, whose content is a text or a list of parts."""
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def sanitise(text: str, max_chars: int) -> str:
    """Return the text on one line without control tokens, tags with a meaning, or control characters.

    Removal is repeated until nothing changes, because nested pieces would survive one pass. No tokenizer makes a special token
    of what is left.
    """
    text = printable(unicodedata.normalize("NFKC", text))
    before = None
    while before != text:
        before = text
        text = _BOXED.sub("", _TAGS.sub("", _CONTROL.sub("", text)))
    text = re.sub(r"\s+", " ", _LIKE_A_TOKEN.sub(r"\g<0> ", text)).strip()
    return text if len(text) <= max_chars else text[: max_chars - 3].rsplit(" ", 1)[0] + "..."


def printable(text: str) -> str:
    """Return the text with a space for every control, format and line-break character, for a terminal."""
    if text.isprintable():  # nearly every text is, and this is twenty times as fast
        return text
    return "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in text)


# A password may hold a slash; a number after the colon is a port.
_USER = re.compile(r"(https?:/{1,2}|//)(?:(?!/*[^/\s\"'@]*:\d+(?:/|$))/*[^/\s\"'@]*:[^\s\"']*@|[^/\s\"']*@)", re.IGNORECASE)
_URL_QUERY = re.compile(r"(https?://[^\s\"'?#]+)\?[^\s\"'#\\]*", re.IGNORECASE)
_URL_TOKEN = re.compile(r"(https?://[^\s\"'#]+)#[^\s\"'#=]*=[^\s\"'#\\]*", re.IGNORECASE)


def without_credentials(text: str) -> str:
    """Return the text with every address in it without user, password and query (`?api_key=...`)."""
    return _URL_TOKEN.sub(r"\1", _URL_QUERY.sub(r"\1", _USER.sub(r"\1", text)))


# An address that was written without http:// may have a password all the same.
_USER_WITHOUT_SCHEME = re.compile(r"^(?!\w+://).*@")
# What no address holds as it is, and what would end it where it is shown in a sentence or in JSON.
_NOT_IN_ADDRESS = re.compile(r"[\x00-\x20\x7f-\xa0\"'<>\\^`{|}]")


def check_address(url: str, example: str) -> None:
    """Check that a text is an http address.

    Raises:
        HiExpError: it is none, or its host or port is none.
    """
    if odd := _NOT_IN_ADDRESS.search(url):
        raise HiExpError(f"an address has the character {odd[0]!r}; write it as %{ord(odd[0]):02X}, as in a browser")
    try:
        parts = urlsplit(url)
        fault = "" if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 else "found no http:// and host"
        (parts.hostname or "").encode("idna")
        _check_of_library(url)
    except ValueError as error:
        fault = str(error)
    if fault:
        shown = _USER_WITHOUT_SCHEME.sub("", without_credentials(url))[:200]
        raise HiExpError(f"{shown!r} is not an http address ({without_credentials(fault)}); write for example {example}")


def _check_of_library(url: str) -> None:
    import httpx

    try:
        _ = httpx.URL(url).host  # decoded only here
    except httpx.InvalidURL as error:
        raise ValueError(str(error)) from error


def is_local(url: str) -> bool:
    """Return whether an address is that of this machine."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    try:
        address = ip_address(host)
    except ValueError:  # a name, or one of the short forms that a resolver takes (127.1)
        return host in ("localhost", "ip6-localhost") or host.endswith(".localhost") or bool(re.fullmatch(r"127(\.[0-9a-fx]+)*|0", host))
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def listed(items: Sequence[str], most: int = 4) -> str:
    """Return the first items, and how many more there are."""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


# Korean has spaces, but its particles are written to the word: "자그레브를", "자그레브는".
_PAIRED_RUN = re.compile(f"(?:{UNSPACED.pattern}|[\uac00-\ud7a3])+")


def spaced(text: str) -> str:
    """Return the text with pairs of neighbouring characters in place of each run of Korean or of a script without spaces between words.

    "北京大学" is "北京 京大 大学": questions and passages about the same share most of such pairs.
    """
    if text.isascii():
        return text
    return _PAIRED_RUN.sub(lambda run: " " + " ".join(run[0][i : i + 2] for i in range(max(1, len(run[0]) - 1))) + " ", text)


# Accents, the points of Hebrew and the vowel signs of Arabic, which most texts do not write.
_ACCENTS = frozenset(map(chr, (*range(0x300, 0x370), *range(0x591, 0x5C8), *range(0x610, 0x61B), *range(0x64B, 0x660), 0x670)))
_KEYBOARDS = str.maketrans("\u064a\u0649\u0643\u0629", "\u06cc\u06cc\u06a9\u0647")  # one letter of Arabic and Persian, two code points


def folded(text: str) -> str:
    """Return the text with letters as most people type them: without accents, one code point for what two keyboards write."""
    text = unicodedata.normalize("NFKD", text)
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", "".join(c for c in text if c not in _ACCENTS)).translate(_KEYBOARDS)


_SMALL_WORDS = word_set("of in on at to for by from with and is are was were do does did what which who whom whose when where how that")


def main_words(text: str) -> frozenset[str]:
    """Return the normalised words of a question without the small ones: questions with the same words ask the same.

    `content_words` drops more words of queries; in a question "first" and "same" have a meaning.
    """
    return word_set(spaced(normalise(folded(text)))) - _SMALL_WORDS


_SAME = 0.8  # Jaccard overlap of words from which a query counts as asked again
FUNCTION_WORDS = word_set(
    """
    of in on at to for by from with and or is are was were be been do does did has have had which what who whom whose when where why
    how that this these those it its he she they his her their there as than then vs versus both same first name
    """
)


def content_words(text: str) -> frozenset[str]:
    """Return the normalised words of a text without function words."""
    return word_set(spaced(normalise(text))) - FUNCTION_WORDS


def same_query(one: str, other: str) -> bool:
    """Return whether two queries have nearly the same words, in any order."""
    a, b = content_words(one), content_words(other)
    return bool(a | b) and len(a & b) >= _SAME * len(a | b)


def alike_from_start(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the number of leading queries that ask the same in both."""
    alike = [same_query(a, b) for a, b in zip(one, other, strict=False)]
    return alike.index(False) if False in alike else len(alike)


def repeated(queries: Sequence[str]) -> int:
    """Return how many queries ask the same as an earlier one."""
    return sum(any(same_query(query, earlier) for earlier in queries[:i]) for i, query in enumerate(queries))


def load_json(text: str) -> Any:
    """Return the value of a JSON text, None where it is broken."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # RecursionError: "[[[[..." from a looping model
        return None
