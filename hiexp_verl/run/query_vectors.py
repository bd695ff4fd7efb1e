"""The vectors of queries, remembered: the rollouts of a group share their question, and often their first query."""

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

import numpy as np

from hiexp_verl.encoder import Encoder, Vectors

REMEMBERED = 4_096  # texts; 6 MiB at 384 dimensions


class QueryVectors:
    """An encoder that remembers the last query vectors it gave. Safe to call from several threads if the encoder is."""

    def __init__(self, encoder: Encoder, size: int = REMEMBERED) -> None:
        self.identity = encoder.identity
        self._encoder = encoder
        self._size = size
        self._vectors: OrderedDict[str, Vectors] = OrderedDict()  # (D,) each, the last used at the end
        self._lock = Lock()

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Ask the encoder; nothing is remembered."""
        return self._encoder.encode_passages(texts)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Return one vector for each text, (N, D); a text that occurs twice is encoded once.

        Raises:
            ValueError: the encoder gave another shape. Beside that, whatever the encoder raises.
        """
        with self._lock:
            known = {text: self._vectors[text] for text in texts if text in self._vectors}
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if missing:
            made_N_D = self._encoder.encode_queries(missing)
            wanted = (len(missing), self.identity.dimensions)
            if made_N_D.shape != wanted:
                raise ValueError(f"vectors of the shape {made_N_D.shape}, not {wanted}")
            known |= zip(missing, made_N_D, strict=True)
        self._remember(known)
        return np.stack([known[text] for text in texts])

    def _remember(self, known: dict[str, Vectors]) -> None:
        with self._lock:
            for text, vector in known.items():
                if np.isfinite(vector).all():  # what went wrong once may go right the next time
                    self._vectors[text] = vector
                    self._vectors.move_to_end(text)
            while len(self._vectors) > self._size:
                self._vectors.popitem(last=False)
