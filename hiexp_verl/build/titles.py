"""Does a title say when its advice applies? It is what retrieval matches, so it is measured as retrieval sees it."""

import numpy as np
from numpy.typing import NDArray

from hiexp_verl.encoder import Vectors

PERCENTILE = 90.0


def fitting(titles_N_D: Vectors, kinds_N_D: Vectors, percentile: float = PERCENTILE) -> NDArray[np.bool_]:
    """Return which titles lie nearer to their own kind of question than to that percentile of the kinds of the others.

    "Finding the right information" is as near to any question as to its own: it would be retrieved by chance.

    Args:
        titles_N_D: unit vectors of the titles.
        kinds_N_D: unit vectors of what each title should match.
    """
    scores_N_N = titles_N_D @ kinds_N_D.T
    own_N = scores_N_N.diagonal()
    # Questions of the very same kind are no strangers.
    strangers_N_N = kinds_N_D @ kinds_N_D.T < 0.999
    chance_N = [np.percentile(scores_N_N[row, others], percentile) if others.any() else -np.inf for row, others in enumerate(strangers_N_N)]
    return own_N >= np.array(chance_N)
