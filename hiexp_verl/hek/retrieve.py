"""Find experience: titles are matched by cosine, entries are returned (parent-child retrieval)."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.same_question import SameQuestions
from hiexp_verl.hek.store import HEK
from hiexp_verl.io.questions import bare_question
from hiexp_verl.models.encoder import Encoder, Vectors
from hiexp_verl.types import Hit, Level

# Cosines closer than this are ties: the last bits of a matrix product depend on how it was blocked.
_TIE = 1e-6
_HIDDEN_BELOW = -2.0  # under any cosine, over the -inf of a hidden entry
_PEAKS = 512
_REMEMBERED = 4_096  # questions whose ids in the HEK are known

Questions = str | frozenset[str]  # the id of a question, or ids of several


class Retriever:
    """Cosine top-k over a HEK, per level, with leave-one-out by question.

    Raises:
        HiExpError: the encoder is not the one that made the HEK.
    """

    def __init__(self, hek: HEK, encoder: Encoder) -> None:
        hek.check_encoder(encoder.identity)
        self.hek = hek
        self.encoder = encoder
        # By set of levels: the rows of their entries, and those vectors side by side; copied once and not at every look-up.
        self._of_levels: dict[frozenset[Level], tuple[NDArray[np.intp], Vectors]] = {}
        self._rows_of_question: dict[str, list[int]] = defaultdict(list)
        for row, entry in enumerate(hek.entries):
            for question in entry.questions:
                self._rows_of_question[question].append(row)
        self._same_ids: dict[str, frozenset[str]] = {}  # text of a question -> ids in the HEK that ask the same

    @cached_property
    def _same(self) -> SameQuestions:
        return SameQuestions.of(self.hek.sources, self.encoder)

    def known_questions(self, asked: Sequence[tuple[str | None, str]]) -> list[frozenset[str]]:
        """Return for each question, given as id and text, the ids under which the HEK may know it.

        Its own id, and those of sources that ask the same: two data sets may use one id for different questions, or ask the same
        under two. Raises what `SameQuestions.find` raises; nothing is remembered then.
        """
        missing = {text: (text, bare_question(text)) for _, text in asked if text not in self._same_ids}
        if missing:
            if len(self._same_ids) + len(missing) > _REMEMBERED:
                self._same_ids = {text: self._same_ids[text] for _, text in asked if text in self._same_ids}
            forms = list(dict.fromkeys(form for both in missing.values() for form in both))
            found = dict(zip(forms, self._same.find(forms), strict=True))
            self._same_ids |= {text: frozenset(same.question_id for form in both for same in found[form]) for text, both in missing.items()}
        return [self._same_ids[text] | ({question_id} if question_id is not None else set()) for question_id, text in asked]

    def retrieve(
        self,
        queries: Sequence[str] | Vectors,
        levels: Collection[Level],
        top_k: int,
        min_score: float | None = None,
        exclude_questions: Sequence[Questions | None] | None = None,
    ) -> list[list[Hit]]:
        """Return for each query, a text or a vector, at most `top_k` entries of these levels with cosine >= `min_score`.

        An entry distilled only from the question given in `exclude_questions` (one id, several or None per query), or from
        questions that ask the same, is hidden: in training it would hand the question its own solution.
        Equal scores are ordered by entry id. A query vector with a NaN or an infinity in it finds nothing.

        Raises:
            HiExpError: the vectors have other dimensions, or there is not one exclusion per query.
        """
        queries_N_D = queries if isinstance(queries, np.ndarray) else self.encoder.encode_queries(queries)
        if queries_N_D.ndim != 2 or queries_N_D.shape[1] != self.hek.vectors_E_D.shape[1]:
            dimensions = self.hek.vectors_E_D.shape[1]
            raise HiExpError(f"query vectors have the shape {queries_N_D.shape}, the HEK has {dimensions} dimensions; use its encoder")
        excluded = exclude_questions if exclude_questions is not None else [None] * len(queries_N_D)
        if len(excluded) != len(queries_N_D):
            raise HiExpError(f"{len(excluded)} excluded questions for {len(queries_N_D)} queries; give one id or None per query")
        if top_k <= 0:
            return [[] for _ in excluded]
        rows_R, vectors_R_D = self._of(frozenset(levels))
        finite_N: NDArray[np.bool_] = np.all(np.isfinite(queries_N_D), axis=1)
        scores_N_R = np.where(finite_N[:, None], queries_N_D, 0.0) @ vectors_R_D.T
        for scores_R, question in zip(scores_N_R, excluded, strict=True):
            if question is not None and (hidden := self.hidden_rows(question)):
                scores_R[np.searchsorted(rows_R, [row for row in hidden if self.hek.entries[row].level in levels])] = -np.inf
        lowest_N = np.full(len(queries_N_D), _HIDDEN_BELOW if min_score is None else min_score, dtype=np.float32)
        if top_k < len(rows_R):
            # Keep every tie with the k-th, so that the order by id decides and not the partition.
            lowest_N = np.maximum(lowest_N, _reached_by(top_k, scores_N_R) - _TIE)
        lowest_N[~finite_N] = np.inf
        hits: list[list[Hit]] = [[] for _ in excluded]
        for place in np.flatnonzero(scores_N_R >= lowest_N[:, None]):  # in one dimension: argwhere takes ten times as long
            query, i = divmod(place, len(rows_R))
            hits[query].append(Hit(self.hek.entries[rows_R[i]], float(scores_N_R[query, i])))
        return [sorted(found, key=lambda hit: (-round(hit.score / _TIE), hit.entry.id))[:top_k] for found in hits]

    def hidden_rows(self, questions: Questions) -> set[int]:
        """Return the rows of the entries that come from nothing but these questions (or questions that ask the same)."""
        known = {questions} if isinstance(questions, str) else questions
        own = known.union(*(self.hek.header.near_duplicates.get(each, ()) for each in known))
        rows = {row for each in own for row in self._rows_of_question.get(each, ())}
        return {row for row in rows if own.issuperset(self.hek.entries[row].questions)}

    def _of(self, levels: frozenset[Level]) -> tuple[NDArray[np.intp], Vectors]:
        if levels not in self._of_levels:
            rows_R = np.array([row for row, entry in enumerate(self.hek.entries) if entry.level in levels], dtype=np.intp)
            self._of_levels[levels] = rows_R, np.ascontiguousarray(self.hek.vectors_E_D[rows_R])
        return self._of_levels[levels]


def _reached_by(top_k: int, scores_N_R: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return for each query a score that at least its `top_k` best reach, and few others.

    Of many scores it is the k-th best of 512 maxima over equal parts of them: partitioning all takes six times as long.
    """
    of_one = scores_N_R.shape[1] // _PEAKS
    if of_one > 1 and top_k <= _PEAKS:
        scores_N_R = scores_N_R[:, : of_one * _PEAKS].reshape(-1, of_one, _PEAKS).max(axis=1)
    return np.partition(scores_N_R, -top_k, axis=1)[:, -top_k]
