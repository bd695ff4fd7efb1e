"""Find experience: titles are matched by cosine, entries are returned (parent-child retrieval)."""

from collections import defaultdict
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from hiexp_verl.encoder import Encoder, Vectors
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.store import HEK
from hiexp_verl.types import Hit, Level
from hiexp_verl.words import content_words

# Cosines closer than this are ties: the last bits of a matrix product depend on how it was blocked.
_TIE = 1e-6


class Retriever:
    """Cosine top-k over a HEK, per level, with leave-one-out by question.

    Raises:
        HiExpError: the encoder is not the one that made the HEK.
    """

    def __init__(self, hek: HEK, encoder: Encoder) -> None:
        hek.check_encoder(encoder.identity)
        self.hek = hek
        self.encoder = encoder
        self._rows: dict[str, NDArray[np.intp]] = {
            level: np.array([i for i, entry in enumerate(hek.entries) if entry.level == level], dtype=np.intp) for level in hek.levels
        }
        self._rows_of_question: dict[str, list[int]] = defaultdict(list)
        for row, entry in enumerate(hek.entries):
            for question in entry.questions:
                self._rows_of_question[question].append(row)
        self._id_of_words = {words: source.question_id for source in hek.sources if (words := content_words(source.question))}

    def known_question(self, question_id: str | None, text: str) -> str | None:
        """Return the id under which the HEK knows a question: that of a source with the same content words, or its own.

        The text comes first: two data sets may use one id for different questions, or ask the same under two. Rows of other
        preprocessors put the question after instructions ("Question: ...").
        """
        bare = text.rpartition("Question:")[2]
        return self._id_of_words.get(content_words(text)) or self._id_of_words.get(content_words(bare)) or question_id

    def retrieve(
        self,
        texts: Sequence[str],
        levels: Collection[Level],
        top_k: int,
        min_score: float | None = None,
        exclude_questions: Sequence[str | None] | None = None,
    ) -> list[list[Hit]]:
        """Return the best entries for each text, best first; see `retrieve_vectors`."""
        return self.retrieve_vectors(self.encoder.encode_queries(texts), levels, top_k, min_score, exclude_questions)

    def retrieve_vectors(
        self,
        queries_N_D: Vectors,
        levels: Collection[Level],
        top_k: int,
        min_score: float | None = None,
        exclude_questions: Sequence[str | None] | None = None,
    ) -> list[list[Hit]]:
        """Return for each query vector at most `top_k` entries of these levels with cosine >= `min_score`.

        An entry distilled only from the question given in `exclude_questions` (one id or None per query), or from
        questions that ask the same, is hidden: in training it would hand the question its own solution.
        Equal scores are ordered by entry id.

        Raises:
            HiExpError: the vectors have other dimensions, or there is not one exclusion per query.
        """
        if queries_N_D.ndim != 2 or queries_N_D.shape[1] != self.hek.vectors_E_D.shape[1]:
            dimensions = self.hek.vectors_E_D.shape[1]
            raise HiExpError(f"query vectors have the shape {queries_N_D.shape}, the HEK has {dimensions} dimensions; use its encoder")
        excluded = exclude_questions if exclude_questions is not None else [None] * len(queries_N_D)
        if len(excluded) != len(queries_N_D):
            raise HiExpError(f"{len(excluded)} excluded questions for {len(queries_N_D)} queries; give one id or None per query")
        rows_R = np.sort(np.concatenate([self._rows[level] for level in dict.fromkeys(levels)] or [np.array([], dtype=np.intp)]))
        scores_N_R = queries_N_D @ self.hek.vectors_E_D[rows_R].T
        return [self._best(scores_R, rows_R, top_k, min_score, question) for scores_R, question in zip(scores_N_R, excluded, strict=True)]

    def hidden_rows(self, question: str) -> set[int]:
        """Return the rows of the entries that come from nothing but this question (or questions that ask the same)."""
        own = {question, *self.hek.header.near_duplicates.get(question, ())}
        rows = {row for each in own for row in self._rows_of_question.get(each, ())}
        return {row for row in rows if own.issuperset(self.hek.entries[row].questions)}

    def _best(
        self, scores_R: NDArray[np.float32], rows_R: NDArray[np.intp], top_k: int, min_score: float | None, question: str | None
    ) -> list[Hit]:
        if question is not None and (hidden := self.hidden_rows(question)):
            scores_R = np.where(np.isin(rows_R, list(hidden)), -np.inf, scores_R)
        lowest = -np.inf if min_score is None else min_score
        if 0 < top_k < len(scores_R):
            # Keep every tie with the k-th, so that the order by id decides and not the partition.
            lowest = max(lowest, np.partition(scores_R, -top_k)[-top_k] - _TIE)
        candidates = np.flatnonzero((scores_R >= lowest) & np.isfinite(scores_R))
        hits = [Hit(self.hek.entries[rows_R[i]], float(scores_R[i])) for i in candidates]
        return sorted(hits, key=lambda hit: (-round(hit.score / _TIE), hit.entry.id))[: max(top_k, 0)]
