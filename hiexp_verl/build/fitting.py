"""Does a text say what it should, more than it says what others should? Measured by cosine, as retrieval sees it."""

import numpy as np
from numpy.typing import NDArray

from hiexp_verl.encoder import Vectors

PERCENTILE = 90.0
_MOST_STRANGERS = 1_000  # a percentile needs no more


def evenly(count: int, most: int) -> slice:
    """Return what takes at most `most` of `count` rows, evenly spaced over all."""
    return slice(None, None, max(1, -(-count // most)))


def chance(scores_M: NDArray[np.float32], are_strangers_M: NDArray[np.bool_], percentile: float) -> float:
    """Return that percentile of the scores with strangers; without any, what every score exceeds."""
    return float(np.percentile(scores_M[are_strangers_M], percentile)) if are_strangers_M.any() else -np.inf


def fitting(texts_N_D: Vectors, wanted_N_D: Vectors, percentile: float = PERCENTILE) -> NDArray[np.bool_]:
    """Return which texts lie at least as near to what is wanted of them as to that percentile of what is wanted of the others.

    The title "Finding the right information" is as near to any question as to its own: it would be retrieved by chance.

    Args:
        texts_N_D: unit vectors of the texts.
        wanted_N_D: unit vectors of what each should say: a title its kind of question, advice what the diagnosis calls for.
    """
    others_M_D = wanted_N_D[evenly(len(wanted_N_D), _MOST_STRANGERS)]
    scores_N_M = texts_N_D @ others_M_D.T
    own_N = np.einsum("nd,nd->n", texts_N_D, wanted_N_D)
    # Those of whom the very same is wanted are no strangers.
    strangers_N_M = wanted_N_D @ others_M_D.T < 0.999
    chance_N = [chance(scores_M, strangers_M, percentile) for scores_M, strangers_M in zip(scores_N_M, strangers_N_M, strict=True)]
    return own_N >= np.array(chance_N)
