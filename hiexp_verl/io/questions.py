"""The question and the gold answers of a row of any known format; files and training read them here."""

import ast
import hashlib
import math
import re
from collections.abc import Mapping
from reprlib import repr as brief
from typing import Any

from hiexp_verl.io.rows import BadRow, Row, bool_field, id_field, object_field, text_field
from hiexp_verl.scoring import em, normalise
from hiexp_verl.text import load_json, text_of
from hiexp_verl.types import Message, Question

ANSWER_FIELDS = ("answers", "golden_answers", "answer", "possible_answers")  # the first that is not blank counts
ALIASES = "answer_aliases"  # further answers, beside any of them
ID_FIELDS = ("id", "_id")
# Columns that `question_of` or verl reads; the others are kept as `meta`.
_READ = {*ID_FIELDS, "question", "meta", *ANSWER_FIELDS, ALIASES, "prompt", "reward_model", "extra_info", "ability"}
_HOLDERS = ("target", "value", "answer", "aliases", "text")  # of the answers in an object: Search-R1, TriviaQA, ComplexWebQuestions, SQuAD
_WORD_OF = {"true": "yes", "false": "no"}
SOURCES = ("data_source", "dataset", "source")  # the data set of a row: the first that is a text
# Column -> its value in a row with an answer (MuSiQue, SQuAD, others).
MARKS = {
    **dict.fromkeys(("answerable", "is_answerable"), True),
    **dict.fromkeys(("is_impossible", "impossible", "unanswerable", "is_unanswerable"), False),
}
CHOICES = ("choices", "options")
_ROW_NUMBER = re.compile(r"(?:(?:train|dev|test|val|validation|q|qid|id|question|row|sample|ex|example)[_-]?)?\d+", re.IGNORECASE)
_SERIALISED = re.compile(r"\s*(?:[\[{]\s*['\"]|\[\s*\]\s*\Z|\{\s*\}\s*\Z)")
_TUPLE = re.compile(r"\s*\(\s*(['\"]).*\1\s*,?\s*\)\s*\Z", re.DOTALL)
_QUOTED = re.compile(r"\s*\"[\[{].*[\]}]\"\s*\Z", re.DOTALL)  # JSON in JSON
_NUMPY_ARRAY = re.compile(r"array\((\[[^\[\]]*\])(?:,\s*dtype=[\w<>'\"]+)?\)")
_NEIGHBOURS = re.compile(r"(['\"])\s+\1")  # "['a' 'b']", as numpy prints: Python would read one text


def question_of(row: Row) -> Question:
    """Return the question of a row of ours, of a public data set, of Search-R1 or of verl; files and training read it alike.

    - text: `question`, else that of `extra_info`, else that of verl's `prompt`, which must ask the same; see `bare_question`
    - answers: `answers`, `golden_answers`, `answer` or `possible_answers`, else the `answers` of `extra_info`, else verl's
      `reward_model.ground_truth`, which must share one with them; `answer_aliases` are added; see `gold_answers`
    - id: the `question_id` of `extra_info` (training has it from here), else `id` or `_id`, else made of the text; a row number such
      as "train_0" is unique in its source alone, so the source (`data_source`, `dataset` or `source`) is put before it

    Raises:
        BadRow: a field is missing, of the wrong type, or contradicts another, or the row is not `is_answerable`.
    """
    name, text = asked_in(row)
    meta = object_field(row, "meta") | {key: value for key, value in row.items() if key not in _READ}
    split = object_field(row, "extra_info").get("split")
    return Question(name, text, answers_of(row), meta | ({"split": split} if split else {}))


def asked_in(row: Row) -> tuple[str, str]:
    """Return the id and the text of the question of a row; see `question_of` for the fields.

    Raises:
        BadRow: there is no question, it is not a text, or the prompt asks another.
    """
    extra, prompt = object_field(row, "extra_info"), row.get("prompt")
    if not row.get("question") and isinstance(prompt, str):
        raise BadRow("'prompt' must be a list of messages", f"found the text {brief(prompt)}")
    text = row.get("question") or question_in(prompt, extra)
    text = unwrapped(text_field({**row, "question": text} if text else row, "question"))
    asked = "\n".join(map(text_of, _users(prompt)))
    if asked and text not in asked and normalise(text) not in normalise(asked):
        raise BadRow("the prompt does not hold the row's question", f"found {brief(asked)} and {brief(text)}")
    name = extra.get("question_id") or next((row[key] for key in ID_FIELDS if row.get(key) is not None), None)
    source = next((row[key] for key in SOURCES if isinstance(row.get(key), str) and row[key].strip()), "")
    if source and not extra.get("question_id") and _ROW_NUMBER.fullmatch(str(name)):
        name = f"{source}-{name}"
    return id_field({"id": question_id_of(text) if name is None else name}, "id"), text


def answers_of(row: Row) -> tuple[str, ...]:
    """Return the gold answers of a row; see `question_of` for the fields.

    Raises:
        BadRow: there is none, one is neither a text nor a number, verl's ground truth is another, or the row is not `is_answerable`.
    """
    if not is_answerable(row):
        raise BadRow("the row is marked as a question without an answer")
    choices = next((row[key] for key in CHOICES if row.get(key) is not None), None)
    if choices is not None and isinstance(row.get("answer"), int) and row["answer"] not in _filled(choices):
        raise BadRow("'answer' is the number of a choice", f"found {row['answer']} of {brief(choices)}; give the text of the answer")
    answers, truth = gold_answers(answers_in(row)), _truth(row)
    if truth and not any(em(each, answers) for each in gold_answers(truth)):
        raise BadRow("reward_model.ground_truth and the row's answers have none in common", f"found {brief(truth)} and {brief(answers)}")
    return answers


def is_answerable(row: Row) -> bool:
    """Return whether a row is not marked as a question without an answer: by `MARKS`, or an empty list of spans as SQuAD 2 has it.

    Raises:
        BadRow: its mark is neither true nor false.
    """
    spans = row.get("answers")
    if isinstance(spans, Mapping) and "answer_start" in spans and not _filled(spans.get("text")):
        return False
    return all(row.get(mark) is None or bool_field(row, mark) is usable for mark, usable in MARKS.items())


def answers_in(row: Row) -> list[Any]:
    """Return the answers of a row as they are written, unchecked; none where there are none."""
    values = (*(row.get(key) for key in ANSWER_FIELDS), object_field(row, "extra_info").get("answers"), _truth(row))
    return _filled([next((value for value in values if _filled(value)), None), row.get(ALIASES)])


def _truth(row: Row) -> list[Any]:
    return _filled(object_field(row, "reward_model").get("ground_truth"))


def gold_answers(value: Any) -> tuple[str, ...]:
    """Return the answers in a value, each once, stripped.

    It is a text, a number, a boolean (both its words count: yes and true), an object that holds answers (`{"target": ...}` of
    Search-R1, `{"value": ..., "aliases": ...}` of TriviaQA, `{"text": ...}` of SQuAD), a list of such, or the text of such an
    object or list, as JSON or as Python writes it.

    Raises:
        BadRow: there is none, one is neither a text nor a number, or such a text cannot be read.
    """
    values = _filled(value)
    if odd := [v for v in values if isinstance(v, Mapping) or (isinstance(v, float) and not math.isfinite(v))]:
        raise BadRow("an answer must be a text or a number", f"found {brief(odd[0])}")
    if not values:
        raise BadRow("no answer", "give 'answer' (text) or 'answers' (a list)")
    # A column of numbers comes as floats: 1889.0 is the year that a policy writes as 1889.
    whole = [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]
    answers = [str(v).strip() for v in whole]
    # A column of booleans may come as text.
    more = [_WORD_OF[answer.lower()] for answer in answers if answer.lower() in _WORD_OF]
    return tuple(dict.fromkeys([*answers, *more]))


def _filled(value: Any) -> list[Any]:
    """Return the values that are not blank, lists flattened."""
    value = getattr(value, "tolist", lambda: value)()  # numpy arrays of verl
    if isinstance(value, str):
        value = _unserialised(value)
    if isinstance(value, Mapping) and (held := [value[key] for key in _HOLDERS if key in value]):
        value = held
    if isinstance(value, list | tuple):
        return [one for each in value for one in _filled(each)]
    if isinstance(value, bool):
        return [_WORD_OF[str(value).lower()], str(value).lower()]
    return [] if value is None or not str(value).strip() else [value]


def _unserialised(text: str) -> Any:
    """Return the list or the object that a text is, as JSON or as Python writes it; another text as it is."""
    if _TUPLE.match(text) and (held := _python(text)) is not None:
        return held
    if _QUOTED.match(text) and isinstance(inner := load_json(text), str):
        return _unserialised(inner)
    if not _SERIALISED.match(text):
        return text
    held = load_json(text)
    python = _NUMPY_ARRAY.sub(r"\1", text)
    if held is None and not _NEIGHBOURS.search(python):
        held = _python(python)
    if held is None:
        raise BadRow("an answer is the text of a list or an object, but neither JSON nor Python", f"found {brief(text)}; give a list")
    return sorted(held, key=str) if isinstance(held, set) else held


def _python(text: str) -> Any:
    """Return the value of a text as Python writes it, None where it is none."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def question_in(prompt: Any, extra_info: Row) -> str:
    """Return the question of verl's row: that of `extra_info`, else the bare one of the last user message, else ""."""
    if extra_info.get("question"):
        return str(extra_info["question"])
    return bare_question(text_of(users[-1])) if (users := _users(prompt)) else ""


def _users(prompt: Any) -> list[Message]:
    return [m for m in (prompt if isinstance(prompt, list | tuple) else ()) if isinstance(m, dict) and m.get("role") == "user"]


# "Question:", "**Question**:", "### Question", "[Question]", "Q:", "Solve the following question:" and the like, at the start of a line;
# "Question:" also at that of a sentence, and "User:" where "Assistant:" follows; "<question>" anywhere.
_WHICH = "the|this|my|your|user|following|given|next|initial|original|main|actual|current|final|task"
_LEAD = rf"(?:(?:{_WHICH}|please|now|solve|answer|consider|respond to|(?:here|below|this) is),?\s+){{0,6}}"
_HOW = r"(?:\s+(?:step by step|using|with|by|based on|below|you)\b[^:\n.?]{0,60}(?=:))?"  # "the following question using the search tool:"
_TAGS = "question|user_question|query|user_query|problem"
_FOREIGN = "问题|問題|質問|질문|Frage|Pregunta|Pergunta|Domanda|Вопрос|Câu hỏi"
_ASKED = re.compile(
    rf"(?:^[#*\[( \t]*(?:{_LEAD}(?:Question|Query|Problem|answer (?:this|the following)(?=:))|User|Human"
    rf"|(?:Q\d*|Input|{_FOREIGN})(?=\s?[:\uff1a]))"
    rf"|(?<=[.!?>])[^\S\n]+(?:{_LEAD}Question|(?:{_FOREIGN})(?=\s?[:\uff1a])|(?:User|Human)(?=:[\s\S]{{0,4000}}?\bAssistant:))|(?<=[\u3002\uff01])(?:{_FOREIGN})(?=\s?[:\uff1a]))"
    rf"{_HOW}(?:\s+is|\s+\d+)?[*\])]*(?:\s?[:\uff1a]|[^\S\n][-\u2013](?=\s)|(?=\n))[*]*\s*"
    rf"|^[^\S\n]*\[(?:Question|Query|Problem)\]\s*|<({_TAGS})>(?=[\s\S]{{0,4000}}?</\1>)\s*",
    re.MULTILINE | re.IGNORECASE,
)
# What follows a question in a prompt: the start of the reply, a heading of rules, or the end of a tag.
_REPLY = "Assistant|Answer|Response|Thought|Output|Instructions?"
_RULES = "Rules?|Instructions?|Requirements?|Constraints?|Guidelines?|Notes?|Output format|Format"
_THEN = re.compile(
    rf"(?<!\s)\s+#* ?[*\[(]*(?:{_REPLY})[*\])]*:|\n\s*#* ?[*\[(]*(?i:(?:your |the |final )*(?:{_REPLY}))[*\])]*:|\n[* \t]*A\d*:"
    rf"|\n\s*(?:#+ ?|\*\*)(?i:{_RULES})\b|\s*[\n\u3002](?:答案|回答|답변|Antwort|Respuesta|Resposta|Risposta|Réponse|Ответ)\s?[:\uff1a]"
    rf"|(?i:</(?:{_TAGS})>|\[/(?:question|query|problem)\])"
)
# What a preprocessor puts at the end of a question.
_TAIL = re.compile(r"(?:(?<=[.?!])\s{1,8}Let['\u2019]s think step by step\b[^\n]{0,200})?(?:\s{1,8}(?:/(?:no_)?think|\[/INST\])){0,2}\Z")
_INSTRUCTS = re.compile(
    r"</?(?:question|think|search|answer|information|tool_call|tool_response|result|documents?)>|\\boxed"
    r"|\bYou are an? (?:\w+ ){0,4}(?:assistant|agent)\b|\b[Aa]nswer the (?:following|given) question\b"
)
# Advice around a question, which a question may hold as well ("Which search tool ...?").
_ADVISES = re.compile(
    r"\b[Uu]se the search\b|\b[Ss]earch tool\b|\b[Ff]inal answer\b|\b[Kk]eep (?:it|(?:your|the) answers?) (?:short|brief|concise)\b"
    r"|\b[Aa]nswer (?:the question )?(?:concisely|briefly|shortly)\b"
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=>)\s+(?=[A-Z])|\n+")


def bare_question(text: str) -> str:
    """Return the question in the text of a prompt, without the instructions that a preprocessor puts before or after it.

    The question stands after the last "Question:" (or "User:", "Query:", ...), up to "Assistant:" or "Answer:", without the sentences
    that name a tag of the agent; with no such mark it is the sentences that ask. A text with neither is a question as it is. A
    paragraph that asks after an answer shows that what was marked is an example.
    """
    after = (_THEN.split(text[mark.end() :].strip(), maxsplit=1) for mark in _ASKED.finditer(text))
    if marked := [parts for parts in after if parts[0]]:
        text, *reply = marked[-1]
        if later := [part for part in "".join(reply).split("\n\n")[1:] if part.rstrip().endswith("?")]:
            return bare_question(later[-1])
        text = text.removesuffix(".") if text.endswith("?.") else text  # of "User: Who? . Assistant:"
    text = _TAIL.sub("", text.strip()) or text.strip()
    if not (_INSTRUCTS.search(text) or _ADVISES.search(text)):
        return text
    plain = [sentence for sentence in _SENTENCE.split(text) if sentence.strip() and not _instructs(sentence)]
    asking = [sentence for sentence in plain if sentence.rstrip().endswith("?")]
    return " ".join(plain if marked else asking or plain).strip() or text


def _instructs(sentence: str) -> bool:
    asks = sentence.rstrip().endswith("?")
    return bool(_INSTRUCTS.search(sentence) or (not asks and _ADVISES.search(sentence)))


def unwrapped(question: str) -> str:
    """Return the bare question in a field that should hold one alone: only instructions, which name tags of the agent, are taken off."""
    tags = set(_INSTRUCTS.findall(question))
    return bare_question(question) if len(tags) > 1 or "\\boxed" in tags or (tags and _ASKED.search(question)) else question


def question_id_of(question: str) -> str:
    """Return an id made of the question's text, for questions without an id; equal texts get equal ids."""
    return f"q-{hashlib.sha256(' '.join(question.split()).encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
