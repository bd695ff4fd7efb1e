"""Dense search in this process: exact cosine over encoder vectors, which are cached on disk."""

import logging
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np

from hiexp_verl.errors import HiExpError
from hiexp_verl.io.files import atomic_writer, cache_dir
from hiexp_verl.models.encoder import Encoder, Vectors
from hiexp_verl.search import Ranking, best_rows, digest_of_passages
from hiexp_verl.types import Passage

logger = logging.getLogger(__name__)

_CHUNK = 512  # passages encoded between two updates of the progress bar


class DenseSearch:
    """Exact cosine search; vectors_P_D are cached under a hash of the encoder and the passages.

    Raises:
        HiExpError: the corpus is empty.
    """

    def __init__(self, passages: Sequence[Passage], encoder: Encoder, cache: Path | None = None) -> None:
        if not passages:
            raise HiExpError("the corpus is empty; dense search needs at least one passage")
        self._passages = list(passages)
        self._encoder = encoder
        self._lock = Lock()  # encoders need not be thread-safe
        identity = encoder.identity
        kind = (identity.sha256, identity.passage_prefix, str(identity.dimensions))
        self.cache_file = (cache or cache_dir() / "dense") / f"{digest_of_passages(self._passages, *kind)}.npy"
        self._vectors_P_D = self._load() if self.cache_file.is_file() else self._encode()

    def search(self, queries: Sequence[str], top_k: int) -> list[Ranking]:
        """Return the `top_k` nearest passages of each query with their cosines."""
        if not queries:
            return []
        with self._lock:
            queries_Q_D = self._encoder.encode_queries(list(queries))
        scores_Q_P = queries_Q_D @ self._vectors_P_D.T
        return [[(self._passages[row], float(scores_P[row])) for row in best_rows(scores_P, top_k)] for scores_P in scores_Q_P]

    def _load(self) -> Vectors:
        try:
            vectors_P_D = np.load(self.cache_file, mmap_mode="r", allow_pickle=False)
            if vectors_P_D.shape == (len(self._passages), self._encoder.identity.dimensions):
                return vectors_P_D
            fault = f"shape {vectors_P_D.shape}"
        except (ValueError, EOFError) as error:
            fault = str(error)
        logger.warning("the cached vectors %s are damaged (%s); encoding the corpus again", self.cache_file, fault)
        return self._encode()

    def _encode(self) -> Vectors:
        from tqdm import tqdm

        texts = [f"{p.title}\n{p.text}" for p in self._passages]
        starts = tqdm(range(0, len(texts), _CHUNK), desc="encode corpus", disable=len(texts) <= _CHUNK)
        vectors_P_D = np.concatenate([self._encoder.encode_passages(texts[i : i + _CHUNK]) for i in starts])
        with atomic_writer(self.cache_file, "wb") as file:  # other processes may read or write it
            np.save(file, vectors_P_D, allow_pickle=False)
        return vectors_P_D
