"""Does a text say what it should, more than it says what others should? Measured by cosine, as retrieval sees it."""

import numpy as np
from numpy.typing import NDArray

from hiexp_verl.encoder import Vectors

PERCENTILE = 90.0


def fitting(texts_N_D: Vectors, wanted_N_D: Vectors, percentile: float = PERCENTILE) -> NDArray[np.bool_]:
    """Return which texts lie at least as near to what is wanted of them as to that percentile of what is wanted of the others.

    The title "Finding the right information" is as near to any question as to its own: it would be retrieved by chance.

    Args:
        texts_N_D: unit vectors of the texts.
        wanted_N_D: unit vectors of what each should say: a title its kind of question, advice what the diagnosis calls for.
    """
    scores_N_N = texts_N_D @ wanted_N_D.T
    own_N = scores_N_N.diagonal()
    # Those of whom the very same is wanted are no strangers.
    strangers_N_N = wanted_N_D @ wanted_N_D.T < 0.999
    chance_N = [np.percentile(scores_N_N[row, others], percentile) if others.any() else -np.inf for row, others in enumerate(strangers_N_N)]
    return own_N >= np.array(chance_N)
