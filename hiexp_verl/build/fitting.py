"""Does a text say what it should, more than it says what others should? Measured by cosine, as retrieval sees it."""

import numpy as np
from numpy.typing import NDArray

from hiexp_verl.encoder import Vectors

PERCENTILE = 90.0
_MOST_STRANGERS = 1_000  # evenly spaced over all: a percentile needs no more


def fitting(texts_N_D: Vectors, wanted_N_D: Vectors, percentile: float = PERCENTILE) -> NDArray[np.bool_]:
    """Return which texts lie at least as near to what is wanted of them as to that percentile of what is wanted of the others.

    The title "Finding the right information" is as near to any question as to its own: it would be retrieved by chance.

    Args:
        texts_N_D: unit vectors of the texts.
        wanted_N_D: unit vectors of what each should say: a title its kind of question, advice what the diagnosis calls for.
    """
    others_M_D = wanted_N_D[:: max(1, -(-len(wanted_N_D) // _MOST_STRANGERS))]
    scores_N_M = texts_N_D @ others_M_D.T
    own_N = np.einsum("nd,nd->n", texts_N_D, wanted_N_D)
    # Those of whom the very same is wanted are no strangers.
    strangers_N_M = wanted_N_D @ others_M_D.T < 0.999
    chance_N = [
        np.percentile(scores_M[is_other_M], percentile) if is_other_M.any() else -np.inf
        for scores_M, is_other_M in zip(scores_N_M, strangers_N_M, strict=True)
    ]
    return own_N >= np.array(chance_N)
