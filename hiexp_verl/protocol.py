"""The text of an episode, written and read: system prompt, search calls, documents, answers.

Training, rollouts without verl, the warm start, importers and the builder write and read it here, in two dialects:

* ``search_tags`` (Search-R1): ``<search>query</search>`` is answered by ``<information>...</information>``.
* ``hermes`` (verl and Qwen tool calls): ``<tool_call>{"name": "search", "arguments": {"query": ...}}</tool_call>``.

In both the answer is ``<answer>short</answer>``. Reading never raises.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast, get_args

from hiexp_verl.errors import HiExpError
from hiexp_verl.scoring import ANSWER_CLOSE, ANSWER_OPEN
from hiexp_verl.text import load_json, sanitise, text_of
from hiexp_verl.types import Message, Passage

Format = Literal["search_tags", "hermes"]
FORMATS: tuple[Format, ...] = get_args(Format)

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
SEARCH_OPEN, SEARCH_CLOSE = "<search>", "</search>"
CALL_OPEN, CALL_CLOSE = "<tool_call>", "</tool_call>"
INFORMATION_OPEN, INFORMATION_CLOSE = "<information>", "</information>"

SEARCH_TOOL_NAME = "search"
SEARCH_TOOL_SCHEMA: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": SEARCH_TOOL_NAME,
        "description": "Search the document collection and return the passages that match best.",
        "parameters": {
            "type": "object",
            "properties": {"query": {"type": "string", "description": "What to search for: one fact at a time."}},
            "required": ["query"],
        },
    },
}

MAX_QUERY_CHARS = 512  # a model that loops inside a call must not send a book to the search engine
_MAX_TITLE_CHARS = 200
_CHARS_PER_WORD = 40  # bounds the work on a passage without spaces; ordinary words are far shorter
_NO_DOCUMENTS = "No documents found."


def check_format(format: str) -> Format:
    """Return the format if it is known.

    Raises:
        HiExpError: it is not.
    """
    if format not in FORMATS:
        raise HiExpError(f"unknown episode format {format!r}; use one of {', '.join(FORMATS)}")
    return cast(Format, format)


@cache
def system_prompt(format: Format) -> str:
    """Return the system prompt of the format (prompts/system_<format>.txt)."""
    path = Path(__file__).parent / "prompts" / f"system_{check_format(format)}.txt"
    return path.read_text(encoding="utf-8").strip()


def first_messages(question: str, format: Format, instructions: str = "") -> list[Message]:
    """Return a fresh [system, user] pair; the user message is the bare question. `instructions` replace those of the dialect."""
    return [{"role": "system", "content": instructions or system_prompt(format)}, {"role": "user", "content": question}]


def call_tags(format: Format) -> tuple[str, str]:
    """Return the opening and the closing tag of a search call."""
    return (SEARCH_OPEN, SEARCH_CLOSE) if check_format(format) == "search_tags" else (CALL_OPEN, CALL_CLOSE)


def write_call(query: str, format: Format) -> str:
    """Return the text of a search call."""
    if check_format(format) == "search_tags":
        return f"{SEARCH_OPEN} {query} {SEARCH_CLOSE}"
    call = json.dumps({"name": SEARCH_TOOL_NAME, "arguments": {"query": query}}, ensure_ascii=False)
    return f"{CALL_OPEN}\n{call}\n{CALL_CLOSE}"


def write_answer(answer: str) -> str:
    """Return the text of a final answer."""
    return f"{ANSWER_OPEN} {answer} {ANSWER_CLOSE}"


def close_call(text: str, tags: tuple[str, str]) -> str:
    """Append the closing tag that a server cut off as a stop string, when a call is open at the end of the text."""
    opening, closing = tags
    return text + closing if text.rfind(opening) > text.rfind(closing) else text


def find_search(text: str, format: Format) -> str | None:
    """Return the query of the first call that an episode of this format runs, else None.

    In ``search_tags`` a complete answer ends the episode and later calls are ignored. In ``hermes`` all calls count, as in verl's
    parser. Calls of other tools are not run.
    """
    return next((query for _, name, query in _calls_in(text, format) if query and name == SEARCH_TOOL_NAME), None)


def render_documents(passages: Sequence[Passage], format: Format, max_words_per_passage: int, max_chars: int) -> str:
    """Return the search result as the model reads it, at most `max_chars` long, wrapper included.

    Documents are untrusted: every title and text is sanitised. What does not fit is cut at a word, last passage first.
    """
    room = max_chars - len(_wrap("", format))
    lines: list[str] = []
    for number, passage in enumerate(passages, start=1):
        line = _cut(_document(number, passage, max_words_per_passage), room)
        if line is None:
            break
        lines.append(line)
        room -= len(line) + 1
    return _wrap("\n".join(lines) or _NO_DOCUMENTS, format)


def found_nothing(text: str) -> bool:
    """Return whether a search result, as `render_documents` writes it, has no documents."""
    return _WRAPPER.sub("", text).strip() in ("", _NO_DOCUMENTS)


def documents_in(text: str) -> list[tuple[str, str]]:
    """Return the (title, text) of each document of a search result, as `render_documents` writes them."""
    return _DOCUMENT.findall(text)


def search_failed_message(reason: str, format: Format = "search_tags") -> str:
    """Return what the model reads in place of documents when the search itself failed."""
    reason = sanitise(reason, max_chars=120) or "unknown reason"
    return _wrap(f"The search failed ({reason}). Search again or answer with what you know.", format)


def _document(number: int, passage: Passage, max_words: int) -> str:
    title = sanitise(passage.title, _MAX_TITLE_CHARS).replace('"', "'")
    words = sanitise(passage.text, max_words * _CHARS_PER_WORD).split()
    text = " ".join(words[:max_words]) + (" ..." if len(words) > max_words else "")
    return f'Doc {number}(Title: "{title}") {text}'.rstrip()


def _cut(line: str, room: int) -> str | None:
    """Return the line within the room, cut at a word; None when not even a quarter of it, or 40 characters, fits."""
    if len(line) <= room:
        return line
    if room < min(40, len(line) // 4) or room <= 4:
        return None
    return line[: room - 4].rsplit(" ", 1)[0] + " ..."


def _wrap(text: str, format: Format) -> str:
    if check_format(format) == "search_tags":
        return f"{INFORMATION_OPEN}\n{text}\n{INFORMATION_CLOSE}"
    return text


_DOCUMENT = re.compile(r"Doc \d+\(Title: \"(.*?)\"\) *(.*)")
_EXPERIENCE = re.compile(r"<experience>.*?(?:</experience>|\Z)", re.DOTALL)
_WRAPPER = re.compile(r"</?(?:information|tool_response)>")


@dataclass(frozen=True)
class Search:
    """One search call of the agent and what it got back."""

    query: str
    documents: str  # without tags and without experience shown beside it; "" when nothing came back
    message_index: int  # of the assistant message that made the call
    result_index: int | None = None  # of the tool message that answered it, as written; None when nothing came back


def searches(messages: Sequence[Message]) -> list[Search]:
    """Return the searches of an episode, in order; a result belongs to the call of its `tool_call_id`, else the k-th to the k-th call.

    A search is a call of any tool with a query, in either dialect or parsed by a server into `tool_calls`; others have results, too.
    """
    found: list[Search] = []
    for index, message in enumerate(messages):
        if message.get("role") != "assistant":
            continue
        results = list(_results_after(messages, index))
        by_id = {messages[at].get("tool_call_id"): (at, documents) for at, documents in results}
        for number, (query, call_id) in enumerate(_queries(message)):
            in_turn = results[number] if number < len(results) else (None, "")
            result, documents = by_id.get(call_id, in_turn) if call_id else in_turn
            found += [Search(query, documents, index, result)] if query else []
    return found


def queries_in(messages: Sequence[Message]) -> list[str]:
    """Return the queries of an episode's searches, in order."""
    return [search.query for search in searches(messages)]


# Of our tool, of verl's, of others.
_QUERY_KEYS = (
    *("query", "query_list", "queries", "q", "search_query", "search_queries", "search_term", "search_terms"),
    *("keyword", "keywords"),
)
_SEARCHES = re.compile(r"search|retriev|lookup|wiki|google|bing", re.IGNORECASE)  # names of tools whose one text is a query


def query_in(arguments: object, keys: Sequence[str] = ("query",)) -> str:
    """Return the query in the arguments of a call, an object or JSON text, on one line and bounded; "" where there is none.

    Only our own key is run. Several queries of one call have one result: they are one query, with "; " between them.
    """
    if isinstance(arguments, str):  # the OpenAI wire format quotes the arguments, and so do some models
        arguments = load_json(arguments)
    if not isinstance(arguments, dict):
        return ""
    query = next((arguments[key] for key in keys if arguments.get(key)), None)
    if isinstance(query, list) and len(keys) > 1:
        query = "; ".join(one if isinstance(one, str) else query_in(one, keys) for one in query)
    return _one_line(query) if isinstance(query, str) else ""


def _query_of(name: object, arguments: object) -> str:
    """Return the query of a call of another program: under one of its keys, or the one text that a tool for searching is given."""
    if query := query_in(arguments, _QUERY_KEYS):
        return query
    if not _SEARCHES.search(str(name)):
        return ""
    held = load_json(arguments) if isinstance(arguments, str) else arguments
    texts = [value for value in held.values() if isinstance(value, str)] if isinstance(held, dict) else []
    return _one_line(texts[0] if len(texts) == 1 else arguments if isinstance(arguments, str) and held is None else "")


def makes_call(message: Message) -> bool:
    """Return whether a message of the assistant makes a call that `searches` reads."""
    return any(query for query, _ in _queries(message))


def _queries(message: Message) -> list[tuple[str, str | None]]:
    """Return the query of each call in a message, "" where it has none, with the id of the call, where it has one."""
    text = text_of(message)
    calls = sorted(call for format in FORMATS for call in _calls_in(text, format, _QUERY_KEYS))  # in the order of the text
    beside = [call for call in message.get("tool_calls") or () if isinstance(call, dict) and isinstance(call.get("function"), dict)]
    parsed = [(_query_of(call["function"].get("name"), call["function"].get("arguments")), call.get("id")) for call in beside]
    return [(query, None) for _, _, query in calls] + [(query, str(name) if name else None) for query, name in parsed]


def _calls_in(text: str, format: Format, keys: Sequence[str] = ("query",)) -> Iterator[tuple[int, str, str]]:
    """Yield (position, tool, query) of each call: between a closing tag and the nearest opening before it.

    Empty search tags, calls that are not closed and broken JSON are passed over (str.find: linear on any text).
    """
    opening, closing = call_tags(format)
    answer = text.find(ANSWER_OPEN)
    if format == "search_tags" and answer >= 0 and text.find(ANSWER_CLOSE, answer) >= 0:
        text = text[:answer]  # a complete answer ends the episode
    position = 0
    while (end := text.find(closing, position)) >= 0:
        start = text.rfind(opening, position, end)
        if start >= 0:
            body = text[start + len(opening) : end]
            name, query = (SEARCH_TOOL_NAME, _one_line(body)) if format == "search_tags" else _hermes_call(body, keys)
            if query or (name and format == "hermes"):  # verl answers every well-formed call
                yield start, name, query
        position = end + len(closing)


def _hermes_call(body: str, keys: Sequence[str]) -> tuple[str, str]:
    call = load_json(body)
    if not isinstance(call, dict):
        return "", ""
    other = call.get("parameters") if len(keys) > 1 else None  # of other programs
    arguments = call.get("arguments", other)
    name = "" if arguments is None else str(call.get("name"))
    return name, _query_of(name, arguments) if len(keys) > 1 else query_in(arguments, keys)


def _one_line(query: str) -> str:
    encodable = query.encode("utf-8", "replace").decode()  # JSON can escape half a character, which no server or file takes
    return " ".join(encodable.split())[:MAX_QUERY_CHARS].strip()


def _results_after(messages: Sequence[Message], index: int) -> Iterator[tuple[int, str]]:
    for number, message in enumerate(messages[index + 1 :], start=index + 1):
        if message.get("role") == "assistant":
            return
        if message.get("role") == "tool":
            yield number, _WRAPPER.sub("", _EXPERIENCE.sub("", text_of(message))).strip()
