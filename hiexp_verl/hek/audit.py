"""Overlap of a HEK with a test set: the same questions, and answers of test questions inside entries."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hiexp_verl import masking
from hiexp_verl.domains.domain import Domain
from hiexp_verl.domains.search import SEARCH
from hiexp_verl.hek.same_question import NEAR_COSINE, NEAR_WORDS, SameQuestions, text_key
from hiexp_verl.hek.store import HEK
from hiexp_verl.models.encoder import Encoder
from hiexp_verl.scoring import UNSPACED, tokens
from hiexp_verl.text import listed, sanitise
from hiexp_verl.types import Question

MIN_ANSWER_CHARS = 4  # shorter ones ("yes", "two") are words of any text


@dataclass(frozen=True)
class Overlap:
    """A test question that the HEK was distilled from."""

    question: str  # id in the test set
    text: str
    hek_question: str  # id in the HEK
    hek_text: str  # "" where the HEK keeps only the id
    how: str  # "same text", "same id", "same content words", "cosine 0.97", "words 0.83"
    entries: tuple[str, ...]  # ids of the entries that rest on it


@dataclass(frozen=True)
class AnswerInEntry:
    """An answer of test questions in the title or description of an entry."""

    answer: str
    entry: str
    questions: tuple[str, ...]  # ids in the test set


@dataclass(frozen=True)
class Audit:
    """What was compared and found."""

    questions: int  # in the test set
    exact: tuple[Overlap, ...]
    near: tuple[Overlap, ...]
    answers: tuple[AnswerInEntry, ...]
    warnings: tuple[str, ...]
    near_means: str  # how near-duplicates were sought
    clean: bool  # no overlap; warnings do not count


def audit(hek: HEK, questions: Sequence[Question], encoder: Encoder | None, domain: Domain = SEARCH) -> Audit:
    """Compare a HEK with a test set.

    Exact: the same text after normalisation, or the same id where the HEK keeps no text. Near: as `hek.same_question`
    defines it for leave-one-out; without an encoder by words alone.
    Answers: whole words, or what `Domain.redact` takes for the answer in a domain that has its own, unless the question itself
    has them or they are ordinary words.

    Raises:
        HiExpError: the encoder is not that of the HEK.
    """
    texts = {source.question_id: source.question for source in hek.sources}
    entries_of: dict[str, list[str]] = defaultdict(list)
    for entry in hek.entries:
        for question in entry.questions:
            entries_of[question].append(entry.id)
    textless = entries_of.keys() - texts.keys()

    def overlaps(found: Iterator[tuple[Question, str, str]]) -> tuple[Overlap, ...]:
        return tuple(Overlap(q.id, q.question, own, texts.get(own, ""), how, tuple(entries_of.get(own, ()))) for q, own, how in found)

    exact = overlaps(_exact(questions, texts, textless))
    found = {each.question for each in exact}
    near = overlaps(_near([question for question in questions if question.id not in found], texts, hek, encoder))
    ordinary, answers = _answers(hek, questions, domain)
    near_means = f"share of common words >= {NEAR_WORDS:g}, no encoder"
    if encoder:
        near_means = f"cosine of {encoder.identity.name} >= {NEAR_COSINE:g}, of those with a third of the words in common"
    return Audit(
        questions=len(questions),
        exact=exact,
        near=near,
        answers=answers,
        warnings=tuple(_warnings(questions, texts, textless, ordinary)),
        near_means=near_means,
        clean=not (exact or near or answers),
    )


def _exact(questions: Sequence[Question], texts: Mapping[str, str], textless: set[str]) -> Iterator[tuple[Question, str, str]]:
    """Yield (test question, id in the HEK, how they are the same)."""
    known: dict[str, list[str]] = defaultdict(list)
    for question_id, text in texts.items():
        known[text_key(text)].append(question_id)
    for question in questions:
        for question_id in known.get(text_key(question.question), ()):
            yield question, question_id, "same text"
        if question.id in textless:
            yield question, question.id, "same id"


def _near(
    questions: Sequence[Question], texts: Mapping[str, str], hek: HEK, encoder: Encoder | None
) -> Iterator[tuple[Question, str, str]]:
    """Yield the closest question of the HEK for each test question that has one close enough."""
    if not texts or not questions:
        return
    if encoder:
        hek.check_encoder(encoder.identity)
    found = SameQuestions(texts, encoder).find([question.question for question in questions])
    for question, same in zip(questions, found, strict=True):
        if same:
            yield question, same[0].question_id, same[0].how


def _answers(hek: HEK, questions: Sequence[Question], domain: Domain) -> tuple[tuple[AnswerInEntry, ...], tuple[AnswerInEntry, ...]]:
    """Return the answers in entries: those that are as in any advice ("film", 100), and all others."""
    if domain.redact is masking.redact:
        ordinary, others = (tuple(_answers_in_entries(hek, questions, ordinary)) for ordinary in (True, False))
        return ordinary, others
    found = tuple(_redacted_answers(hek, questions, domain))
    others = tuple(each for each in found if not _is_ordinary(each.answer))
    return tuple(each for each in found if _is_ordinary(each.answer)), others


def _is_ordinary(answer: str) -> bool:
    bare = answer.strip("-%")
    return (bare.isalpha() and bare.islower()) or (bare.isalnum() and len(bare) < MIN_ANSWER_CHARS)


def _redacted_answers(hek: HEK, questions: Sequence[Question], domain: Domain) -> Iterator[AnswerInEntry]:
    """Yield the answers that the domain would take out of an entry, in whatever notation."""
    asked_by: dict[str, list[tuple[str, Question]]] = defaultdict(list)  # the answer in one notation -> as written, and where
    for question in questions:
        for answer in question.answers:
            asked_by[domain.normalise(answer)].append((answer, question))
    for entry in hek.entries:
        text = f"{entry.title}\n{entry.description}"
        for answer, asked in asked_by.items():
            if domain.redact(text, [asked[0][0]], "") != text:  # the question, which may give it, is rarely looked at
                given = (q.id for written, q in asked if domain.redact(text, [written], q.question) != text)
                if ids := tuple(dict.fromkeys(given)):
                    yield AnswerInEntry(answer, entry.id, ids)


def _answers_in_entries(hek: HEK, questions: Sequence[Question], ordinary: bool) -> Iterator[AnswerInEntry]:
    """Yield the answers in entries: those that are one word in lower case, as in any advice ("film"), or all others."""
    asked_by: dict[str, list[str]] = defaultdict(list)  # normalised answer -> ids of test questions
    for question in questions:
        asked = f" {_spelt(question.question)} "
        wanted = (answer for answer in question.answers if (answer.isalpha() and answer.islower()) == ordinary)
        for answer in dict.fromkeys(map(_spelt, wanted)):
            long = len(answer) >= MIN_ANSWER_CHARS or len(UNSPACED.findall(answer)) > 1
            if long and f" {answer} " not in asked:
                asked_by[answer].append(question.id)
    lengths = {len(answer.split()) for answer in asked_by}
    for entry in hek.entries:
        texts = [tokens(text) for text in (entry.title, entry.description)]
        grams = (" ".join(words[i : i + n]) for words in texts for n in lengths for i in range(len(words) - n + 1))
        for answer in dict.fromkeys(gram for gram in grams if gram in asked_by):
            yield AnswerInEntry(answer, entry.id, tuple(asked_by[answer]))


def _spelt(text: str) -> str:
    return " ".join(tokens(text))


def _warnings(
    questions: Sequence[Question], texts: Mapping[str, str], textless: set[str], ordinary: Sequence[AnswerInEntry]
) -> Iterator[str]:
    other = [q.id for q in questions if q.id in texts and text_key(texts[q.id]) != text_key(q.question)]
    if other:
        yield f"{len(other)} ids of the test set are other questions in the HEK (the first: {other[0]!r}); give the sets distinct ids"
    if textless:
        yield f"the HEK keeps no text of {len(textless)} of its questions; these were compared by id only"
    if words := list(dict.fromkeys(each.answer for each in ordinary)):
        yield f"answers that are ordinary words are in entries ({listed(words)}); not counted"


def audit_text(found: Audit) -> str:
    """Return what overlaps, one thing a line, and what was compared."""
    lines = [
        f"{name}  {each.question} = {each.hek_question} ({each.how}; {listed(each.entries)}): {sanitise(each.text, 200)}"
        for name, overlaps in (("exact", found.exact), ("near ", found.near))
        for each in overlaps
    ]
    lines += [f"answer {each.answer!r} of {listed(each.questions)} in {each.entry}" for each in found.answers]
    lines += [f"warning: {warning}" for warning in found.warnings]
    counts = f"{len(found.exact)} exact, {len(found.near)} near ({found.near_means}), {len(found.answers)} answers in entries"
    return "\n".join([*lines, f"{found.questions} questions, {'no overlap' if found.clean else 'overlap'}: {counts}"])
