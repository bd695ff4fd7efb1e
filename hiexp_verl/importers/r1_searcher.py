"""Raw transcripts with tags around queries, documents and answers, as R1-Searcher publishes them."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from hiexp_verl.errors import HiExpError
from hiexp_verl.importers.openai import scored
from hiexp_verl.io.questions import ANSWER_FIELDS, unwrapped
from hiexp_verl.io.rows import text_field
from hiexp_verl.text import listed, printable
from hiexp_verl.types import Message, Trajectory

_SYSTEM = "Answer the question. Search as often as needed, then give a short answer."
_KNOWN = {*ANSWER_FIELDS, "dataset", "model", "question", "prediction", "correct", "text"}
_PUBLISHED = {"gen_text_store": "text", "pred_ans": "prediction", "gpt4o_output": "correct"}  # R1-Searcher's names
_NEXT_DOCUMENT = re.compile(r"^(?=\(\d+\)\S)", re.MULTILINE)
# "(1)Title: Kabul Text: Kabul is ..." or, as the files for 2WikiMultihopQA have it, "(1)Kabul   Kabul is ..."
_DOCUMENT = re.compile(r'\((\d+)\)("?Title: )?')
_TAG_LIKE = re.compile(r"<[^<>\s]{1,40}>|\[/?[A-Za-z_]{1,20}\]")
_TAGS_SHOWN, _EXTRACT_CHARS, _HEAD_CHARS = 8, 120, 5000  # of a transcript without the expected tags


@dataclass(frozen=True)
class Tags:
    """Opening and closing tags of queries, documents and answers."""

    query: tuple[str, str] = ("<|begin_of_query|>", "<|end_of_query|>")
    documents: tuple[str, str] = ("<|begin_of_documents|>", "<|end_of_documents|>")
    answer: tuple[str, str] = ("<answer>", "</answer>")

    def __post_init__(self) -> None:
        if not all(tag.strip() for pair in (self.query, self.documents, self.answer) for tag in pair):
            raise HiExpError(f"a tag is empty, found {self}; give an opening and a closing tag")


# Of R1-Searcher, of Search-o1, of Search-R1, of ReSearch, of others.
_KNOWN_TAGS = (
    Tags(),
    Tags(("<|begin_search_query|>", "<|end_search_query|>"), ("<|begin_search_result|>", "<|end_search_result|>")),
    *(
        Tags(("<search>", "</search>"), (f"<{tag}>", f"</{tag}>"))
        for tag in ("information", "result", "search_result", "search_results", "documents", "observation")
    ),
)


class FromR1Searcher:
    """Converter of rows with `question`, `answer` and `text` (the transcript); use one per import, since it numbers the questions.

    R1-Searcher itself writes `gen_text_store`, `pred_ans` and `gpt4o_output` for text, prediction and correct. Optional:
    `dataset`, `model`, `prediction` (else the text between the answer tags), `correct` (else the prediction is scored). The n-th
    question of a data set has the id "<dataset>-<n>"; without a data set the id comes from the text. Without `tags`, each
    transcript may have those of R1-Searcher, Search-R1 or ReSearch.
    """

    def __init__(self, tags: Tags | None = None) -> None:
        self._tags = (tags,) if tags else _KNOWN_TAGS
        self._ids: dict[str, str] = {}  # question id from the text and the data set -> our id
        self._sizes: Counter[str] = Counter()
        self._first = ""  # start of the first transcript, until one has a tag
        self._tagged = False

    def __call__(self, row: dict[str, Any]) -> Trajectory:
        """Return the trajectory of a row.

        Raises:
            BadRow: a field is missing or of the wrong type.
        """
        row = {_PUBLISHED.get(key, key): value for key, value in row.items()}
        question, text = unwrapped(text_field(row, "question")), text_field(row, "text")
        if not self._tagged:
            self._tagged = any(tags.query[0] in text or tags.answer[0] in text for tags in self._tags)
            self._first = self._first or text[:_HEAD_CHARS]
        tags = max(self._tags, key=lambda tags: (tags.documents[0] in text, tags.query[0] in text))
        own = {key: value for key, value in row.items() if key not in ("question_id", "score", "id")}
        trajectory = scored(own, list(_messages(question, text, tags)), question)
        question_id = self._question_id(str(row.get("dataset") or ""), trajectory.question_id)
        return replace(trajectory, question_id=question_id, extra={key: value for key, value in row.items() if key not in _KNOWN})

    def check_tags(self) -> None:
        """Check the tags after the last row.

        Raises:
            HiExpError: no transcript had the tag of a search or an answer.
        """
        if self._tagged or not self._first:
            return
        looked_for = " and ".join(f"{opening} ... {closing}" for opening, closing in (self._tags[0].query, self._tags[0].answer))
        found = list(dict.fromkeys(_TAG_LIKE.findall(self._first)))
        holds = f"holds {listed(found, _TAGS_SHOWN)}" if found else "begins"
        raise HiExpError(
            f"no transcript has the tag of a search or an answer; looked for {looked_for}, but the first one {holds}: "
            f"{' '.join(printable(self._first[:_EXTRACT_CHARS]).split())!r}; set --query-tags, --documents-tags and --answer-tags "
            "to the tags of the text"
        )

    def _question_id(self, dataset: str, id_of_text: str) -> str:
        if not dataset:
            return id_of_text
        if (key := f"{dataset}/{id_of_text}") not in self._ids:
            self._sizes[dataset] += 1
            self._ids[key] = f"{dataset}-{self._sizes[dataset]}"
        return self._ids[key]


def _messages(question: str, text: str, tags: Tags) -> Iterator[Message]:
    yield {"role": "system", "content": _SYSTEM}
    yield {"role": "user", "content": question}
    opening, closing = map(re.escape, tags.documents)
    end = 0
    for block in re.finditer(rf"{opening}(.*?)(?:{closing}|\Z)", text, re.DOTALL):  # unclosed: a truncated transcript
        yield from _assistant_turns(text[end : block.start()], tags)
        yield {"role": "tool", "content": f"<information>\n{_documents(block[1])}\n</information>"}
        end = block.end()
    yield from _assistant_turns(text[end:], tags)


def _assistant_turns(text: str, tags: Tags) -> Iterator[Message]:
    """Yield a message per search call and one for the rest; the documents that follow belong to the last call."""
    opening, closing = tags.query
    end = position = 0
    while (stop := text.find(closing, position)) >= 0:
        start = text.rfind(opening, position, stop)
        position = stop + len(closing)
        if start >= 0:
            query = text[start + len(opening) : stop].strip()
            yield _assistant(f"{text[end:start].strip()}\n{opening} {query} {closing}", tags)
            end = position
    if text[end:].strip():
        yield _assistant(text[end:].strip(), tags)


def _assistant(text: str, tags: Tags) -> Message:
    for tag, ours in zip((*tags.query, *tags.answer), ("<search>", "</search>", "<answer>", "</answer>"), strict=True):
        text = text.replace(tag, ours)
    return {"role": "assistant", "content": text}


def _documents(text: str) -> str:
    return "\n".join(_document(part.strip()) for part in _NEXT_DOCUMENT.split(text.strip()) if part.strip())


def _document(text: str) -> str:
    """Return the document in our format; one that has neither of the two known formats is unchanged."""
    start = _DOCUMENT.match(text)
    title, mark, body = text[start.end() :].partition(" Text:" if start[2] else "   ") if start else ("", "", "")
    if not start or not mark:
        return text
    body = " ".join(body.split())
    return f'Doc {start[1]}(Title: "{title}") {body.strip(chr(34)) if start[2] else body}'
