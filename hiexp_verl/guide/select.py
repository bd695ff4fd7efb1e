"""Selection by value: which of the entries that were found is worth showing, by what showing such entries did.

For an entry e of the shortlist with cosine c, and the minimum score t of the place (0 without one):

    x_F = [1, c - t, level, log(1 + n_e), tau_e, tau_e (c - t), tau of its parent, tokens / 100]

| `select` | value of e |
| --- | --- |
| linucb | mu x + sqrt(x' A^-1 x) sigma |
| thompson | theta x, theta ~ N(mu, sigma^2 A^-1): one draw for the rollouts of a question in a step |

Shown are the best k of positive value; to show nothing has the value 0. Outside training nothing is explored: the value is mu x.
mu and A are fitted to the rows of a ledger (`ledger.values`) and lie beside the versions. A place of which too little is known, and
every arm whose entries are not what was found, is served by cosine.

Source: CASCADE (arXiv:2605.06702), with the estimates of the ledger as features.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from hiexp_verl.config import Budgets, Place, Select
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.blocks import rough_tokens
from hiexp_verl.hek.schema import record_of
from hiexp_verl.hek.store import root_of
from hiexp_verl.io.files import atomic_writer, make_folder
from hiexp_verl.types import LEVELS, Entry, Hit

logger = logging.getLogger(__name__)

SHORTLIST = 32  # entries by cosine, of which some are chosen
FEATURES = 8
DRAWS = 64  # of theta, for the probability that an entry is chosen
_FOLDER = "selection"


@dataclass(frozen=True)
class Known:
    """What a ledger knows of an entry."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    exposures: float
    effect: float
    parent: float  # effect of its parent


@dataclass(frozen=True)
class Model:
    """The value of showing an entry at a place, linear in its features."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    mean: tuple[float, ...]  # mu_F
    covariance: tuple[tuple[float, ...], ...]  # sigma^2 A^-1, F x F
    exposures: int = 0  # that it was fitted to


@dataclass(frozen=True)
class Values:
    """What selection knows of a version of a HEK."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    places: Mapping[Place, Model]
    known: Mapping[str, Known]  # by content id

    def save(self, version: Path, content_hash: str) -> Path:
        """Write the values beside the versions; return the path.

        Raises:
            HiExpError: the disk is full, or the folder is not writable.
        """
        path = values_path(version, content_hash)
        make_folder(path.parent)
        with atomic_writer(path) as file:
            json.dump(asdict(self), file)
        return path

    @classmethod
    def load(cls, version: Path, content_hash: str) -> "Values | None":
        """Return the values of this version of a HEK; None where it has none.

        Raises:
            HiExpError: the file is damaged.
        """
        path = values_path(version, content_hash)
        if not path.is_file():
            return None
        try:
            found = record_of(cls, json.loads(path.read_text(encoding="utf-8")), str(path))
        except ValueError as error:
            raise HiExpError(f"{path} is damaged ({error}); remove it, and fit it again with `hiexp ledger HEK --fit`") from error
        for model in found.places.values():
            if np.shape(model.mean) != (FEATURES,) or np.shape(model.covariance) != (FEATURES, FEATURES):
                raise HiExpError(f"{path} has other features than this version; fit it again with `hiexp ledger HEK --fit`")
        return found


def selects(budgets: Budgets) -> bool:
    """Return whether a place selects by value."""
    return budgets.prompt.select != "cosine" or budgets.tool.select != "cosine"


def values_for(version: Path, content_hash: str, budgets: Budgets) -> Values | None:
    """Return the values of a version where these settings select by value; None, with a warning, where it has none yet."""
    if not selects(budgets):
        return None
    found = Values.load(version, content_hash)
    if found is None:
        logger.warning("%s has no values of entries yet; they are selected by cosine (`hiexp ledger HEK --fit` makes some)", version)
    return found


def values_path(version: Path, content_hash: str) -> Path:
    """Return the file of a version's values."""
    return root_of(version) / _FOLDER / f"{content_hash[:32]}.json"


def features(entry: Entry, score: float, threshold: float, known: Known | None) -> NDArray[np.float64]:
    """Return x_F, shape (F,)."""
    n, effect, parent = (known.exposures, known.effect, known.parent) if known is not None else (0.0, 0.0, 0.0)
    over, tokens = score - threshold, rough_tokens(entry.description) / 100
    return np.array([1.0, over, float(LEVELS.index(entry.level)), np.log1p(n), effect, effect * over, parent, tokens])


def choose(
    hits: Sequence[Hit], select: Select, model: Model, known: Mapping[str, Known], top_k: int, threshold: float, draw: str
) -> list[Hit]:
    """Return the hits of positive value, the best first, with their value and the probability of being among the best `top_k`.

    Args:
        draw: names the step and the question; "": nothing is explored.
    """
    if not hits:
        return []
    x_H_F = np.stack([features(hit.entry, hit.score, threshold, known.get(hit.entry.content_id)) for hit in hits])
    mean_F, covariance_F_F = np.array(model.mean), np.array(model.covariance)
    value_H, p_H = x_H_F @ mean_F, np.ones(len(hits))
    if draw and select == "linucb":
        value_H = value_H + np.sqrt(np.einsum("hf,fg,hg->h", x_H_F, covariance_F_F, x_H_F).clip(0))
    elif draw and select == "thompson":
        seed = int.from_bytes(hashlib.blake2b(draw.encode("utf-8", "replace"), digest_size=8).digest(), "little")
        thetas_D_F = np.random.default_rng(seed).multivariate_normal(mean_F, covariance_F_F, size=1 + DRAWS, check_valid="ignore")
        values_D_H = thetas_D_F @ x_H_F.T
        value_H, p_H = values_D_H[0], _chosen_D_H(values_D_H, top_k).mean(axis=0)  # the draw itself is one of them: never 0
    order = [row for row in np.argsort(-value_H, kind="stable") if value_H[row] > 0]
    return [replace(hits[row], value=float(value_H[row]), p=max(float(p_H[row]), 1 / (1 + DRAWS))) for row in order]


def _chosen_D_H(values_D_H: NDArray[np.float64], top_k: int) -> NDArray[np.bool_]:
    """Return for each draw which hits are among the best `top_k` of positive value."""
    ranks_D_H = np.argsort(np.argsort(-values_D_H, axis=1, kind="stable"), axis=1)
    return (ranks_D_H < top_k) & (values_D_H > 0)
