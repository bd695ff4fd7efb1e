"""Which questions ask the same in other words: one definition for leave-one-out, near-duplicates, and the audit.

Words alone miss "capital city" for "capital"; a cosine alone takes questions of one template for the same. So:

| condition | counts as the same |
| --- | --- |
| neither has a name that the other lacks while the other has one, too; the numbers are equal | the same content words |
| | without an encoder: one's content words within the other's, 80% of them |
| | a third of the words in common, and a cosine of 0.95 (MiniLM: paraphrases 0.96 and above) |

Where one calculates, both have the same numbers and signs in the same order: 5 - 3 is neither 5 + 3 nor 3 - 5, whose words are the same.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hiexp_verl.models.encoder import CACHED_TEXTS, Encoder, QueryVectors, Vectors
from hiexp_verl.scoring import normalise
from hiexp_verl.text import main_words, word_set
from hiexp_verl.types import Source

NEAR_COSINE = 0.95
NEAR_WORDS = 0.8  # share of common content words
_LEAST_WORDS = 1 / 3  # with fewer in common no cosine is asked for: it spares encoding every known question
_FILLERS = word_set("be been has have had as it its there name tell me give please")
_POSSESSIVE = re.compile(r"['\u2019]s\b", re.IGNORECASE)  # also that of "what's"
_SIGNS = str.maketrans({"\u2212": "-", "\u2013": "-", "\u00d7": "*", "\u00b7": "*", "\u00f7": "/"})
_SIGN = r"[+^=<>]|(?<=\d)\s*[-*/]|[-*/](?=\s*\d)"  # a hyphen or slash between words is none
_CALCULATION = re.compile(rf"\d+(?:\.\d+)?|{_SIGN}")


def calculation(question: str) -> tuple[str, ...]:
    """Return the numbers and signs of a question in order, nothing where it has no sign: normalised words lack signs."""
    question = question.translate(_SIGNS)
    return tuple(found.strip() for found in _CALCULATION.findall(question)) if re.search(_SIGN, question) else ()


def text_key(question: str) -> str:
    """Return what two questions share whose texts are the same but for case, punctuation and articles."""
    return " ".join((normalise(question.translate(_SIGNS)), *calculation(question)))


class SameQuestion(NamedTuple):
    """A known question that asks the same."""

    question_id: str
    how: str  # "same content words", "words 0.83", "cosine 0.97"


@dataclass(frozen=True)
class _Asked:
    """What is compared of a question."""

    words: frozenset[str]
    names: frozenset[str]  # words that begin with a capital, but for the first
    numbers: frozenset[str]
    calculation: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> "_Asked":
        calculated, text = calculation(text), _POSSESSIVE.sub("", text)
        words = main_words(text)
        capitalised = (word for word in text.split()[1:] if (letters := word.lstrip("\"'([{\u201c\u2018")) and letters[0].isupper())
        names = main_words(" ".join(capitalised)) & words
        return cls(words - _FILLERS or words, names - _FILLERS, frozenset(w for w in words if any(map(str.isdigit, w))), calculated)

    def conflicts(self, other: "_Asked") -> bool:
        """Return whether each has a name that the other lacks (it may be in lower case in one), or the numbers differ."""
        return self.numbers != other.numbers or bool(self.names - other.words and other.names - self.words)


class SameQuestions:
    """Finds, among known questions, those that ask the same as another.

    Known questions are encoded, once, when a question first comes near one: a large HEK costs nothing at the start. Without an
    encoder the words decide alone, on the safe side.
    """

    def __init__(self, texts: Mapping[str, str], encoder: Encoder | None = None) -> None:
        self._encoder = QueryVectors(encoder, CACHED_TEXTS + len(texts)) if encoder else None
        self._ids, self._texts = list(texts), list(texts.values())
        self._known = [_Asked.of(text) for text in self._texts]
        self._sizes_K = np.array([len(each.words) for each in self._known])
        self._rows_of: dict[str, list[int]] = defaultdict(list)
        for row, each in enumerate(self._known):
            for word in each.words:
                self._rows_of[word].append(row)

    @classmethod
    def of(cls, sources: Iterable[Source], encoder: Encoder | None = None) -> "SameQuestions":
        """Return the questions that a HEK was distilled from, by their ids."""
        return cls({source.question_id: source.question for source in sources}, encoder)

    def find(self, texts: Sequence[str]) -> list[list[SameQuestion]]:
        """Return for each text the known questions that ask the same, the likeliest first.

        Raises:
            ValueError: the encoder returned a vector without a direction. Beside that, whatever the encoder raises.
        """
        candidates = [self._candidates(text) for text in texts]
        unsure = [(text, self._texts[row]) for text, found in zip(texts, candidates, strict=True) for row, how in found.items() if not how]
        vectors = self._encoded(list(dict.fromkeys(each for pair in unsure for each in pair)))
        return [self._decided(text, found, vectors) for text, found in zip(texts, candidates, strict=True)]

    def _candidates(self, text: str) -> dict[int, tuple[float, str] | None]:
        """Return rows of known questions with their likeness, None where a cosine decides."""
        asked = _Asked.of(text)
        common_K = np.zeros(len(self._known))
        for word in asked.words:
            common_K[self._rows_of.get(word, [])] += 1
        share_K = common_K / np.maximum(self._sizes_K + len(asked.words) - common_K, 1)
        found: dict[int, tuple[float, str] | None] = {}
        for row in map(int, np.flatnonzero(share_K >= _LEAST_WORDS)):
            known, share = self._known[row], float(share_K[row])
            if known.calculation != asked.calculation:
                continue
            if known.words == asked.words:
                found[row] = (2.0, "same content words")  # names or not; above every cosine
            elif not asked.conflicts(known):
                within = known.words <= asked.words or asked.words <= known.words
                # The word too many may be another hop ("the capital of"), which an encoder tells apart.
                by_words = within and share >= NEAR_WORDS and self._encoder is None
                found[row] = (share, f"words {share:.2f}") if by_words else None
        return found

    def _decided(self, text: str, found: Mapping[int, tuple[float, str] | None], vectors: Mapping[str, Vectors]) -> list[SameQuestion]:
        sure = [(*how, row) for row, how in found.items() if how]
        for row in (row for row, how in found.items() if not how and text in vectors):
            cosine = float(vectors[text] @ vectors[self._texts[row]])
            if cosine >= NEAR_COSINE:
                sure.append((cosine, f"cosine {cosine:.2f}", row))
        return [SameQuestion(self._ids[row], how) for _, how, row in sorted(sure, key=lambda each: (-each[0], each[2]))]

    def _encoded(self, texts: Sequence[str]) -> dict[str, Vectors]:
        if self._encoder is None or not texts:
            return {}
        vectors_N_D = self._encoder.encode_queries(texts)
        if not np.isfinite(vectors_N_D).all() or not vectors_N_D.any(axis=1).all():
            raise ValueError("no direction in the vector: NaN, infinity or nothing but zeros")
        return dict(zip(texts, vectors_N_D, strict=True))


def near_duplicates(questions: Mapping[str, str], encoder: Encoder | None = None) -> dict[str, tuple[str, ...]]:
    """Return, for each question id, the other ids whose questions ask the same (only where there are any)."""
    same = SameQuestions(questions, encoder).find(list(questions.values()))
    others = {one: {each.question_id for each in found} - {one} for one, found in zip(questions, same, strict=True)}
    return {one: tuple(each for each in questions if each in found) for one, found in others.items() if found}
