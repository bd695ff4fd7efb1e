"""Entries of one level become fewer entries of the next: cluster their titles, summarise each cluster."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hiexp_verl.build.cluster import check_unit, height_for, height_of_cosine
from hiexp_verl.build.distill import Distiller
from hiexp_verl.build.entries import merge, number, parent
from hiexp_verl.build.rules import tag_values
from hiexp_verl.build.ward import Tree, ward_tree
from hiexp_verl.encoder import Encoder, Vectors
from hiexp_verl.errors import HiExpError
from hiexp_verl.types import Entry, Level

_ANY = -1.0  # a cosine that every pair reaches


@dataclass(frozen=True)
class LevelConfig:
    """How entries are clustered into the next level: by a Ward height, the cosine of a pair, or (default) an average size."""

    cluster_size: float = 4.0  # used when neither height nor cosine is given
    max_height: float | None = None
    cosine: float | None = None
    min_size: int = 2  # smaller clusters stay without a parent
    merge_cosine: float = 0.95  # parents whose descriptions are this similar are one

    def __post_init__(self) -> None:
        if self.max_height is not None and self.cosine is not None:
            raise HiExpError("both max_height and cosine are set for a level; give one of them")


def summarise(
    entries: Sequence[Entry], level: Level, distiller: Distiller, encoder: Encoder, config: LevelConfig, dropped: Counter[str]
) -> tuple[list[Entry], float]:
    """Return the entries of `level` above these, and the Ward height that made the clusters; count what is left out in `dropped`."""
    if not entries:
        return [], config.max_height or 0.0
    vectors_E_D = _with_shape(encoder.encode_passages([entry.title for entry in entries]), entries)
    check_unit(vectors_E_D)
    tree = ward_tree(vectors_E_D)
    height = _height(tree, config)
    groups: dict[int, list[Entry]] = {}
    for label, entry in zip(tree.cut(height).tolist(), entries, strict=True):
        groups.setdefault(label, []).append(entry)
    # In a small bank no two may be close: then all of them together make the one entry above.
    large = [group for group in groups.values() if len(group) >= config.min_size] or [list(entries)]
    drafts = distiller.summarise(large, level)
    parents = [parent(draft, level, group) for draft, group in zip(drafts, large, strict=True) if draft is not None]
    merged = merge(parents, encoder, _ANY, config.merge_cosine)
    dropped[f"{level} clusters below {config.min_size} entries"] += sum(len(group) < config.min_size for group in groups.values())
    dropped[f"{level} near-duplicates merged"] += len(parents) - len(merged)
    dropped[f"{level} not written"] += len(large) - len(parents)
    return number(merged, level), height


def _with_shape(vectors_E_D: Vectors, entries: Sequence[Entry]) -> Vectors:
    """Append the shape of the question as axes, so that a pair's cosine is the mean of title cosine and same shape (0 or 1).

    Titles alone put "Are both from the same state?" beside "In what city is the company ...?": alike in topic, unlike in
    how one goes about them.
    """
    shapes = [(tag_values([entry], "shape") or [""])[0] for entry in entries]
    axes = sorted(set(shapes))
    one_hot_E_S = np.array([[shape == axis for axis in axes] for shape in shapes], dtype=np.float32)
    return (np.hstack([vectors_E_D, one_hot_E_S]) / np.sqrt(2)).astype(np.float32)


def _height(tree: Tree, config: LevelConfig) -> float:
    if config.max_height is not None:
        return config.max_height
    return height_of_cosine(config.cosine) if config.cosine is not None else height_for(tree, config.cluster_size)
