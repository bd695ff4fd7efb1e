"""Entries of one level become fewer entries of the next: cluster their titles, summarise each cluster."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hiexp_verl.build.cluster import Linkage, height_for, height_of_cosine, linkage_tree
from hiexp_verl.build.distill import Distiller
from hiexp_verl.build.draft import Draft
from hiexp_verl.build.entries import merge, number, parent
from hiexp_verl.build.fitting import fitting
from hiexp_verl.build.gates import admit_summary, is_advice, is_part_of
from hiexp_verl.build.rules import RulesDistiller, advice_over, tag_values
from hiexp_verl.build.support import spread_order, supporters
from hiexp_verl.build.ward import Tree
from hiexp_verl.encoder import Encoder, Vectors
from hiexp_verl.errors import HiExpError
from hiexp_verl.types import Entry, Level

_ANY = -1.0  # a cosine that every pair reaches


@dataclass(frozen=True)
class LevelConfig:
    """How entries are clustered into the next level: by a height of the tree, the cosine of a pair, or (default) an average size."""

    cluster_size: float = 4.0  # used when neither height nor cosine is given
    max_height: float | None = None
    cosine: float | None = None
    linkage: Linkage = "ward"
    min_size: int = 2  # smaller clusters stay without a parent
    merge_cosine: float = 0.95  # parents whose descriptions are this similar are one
    support: float = 50.0  # percentile of the cosines with strangers that a member must exceed to stay under its summary

    def __post_init__(self) -> None:
        if self.max_height is not None and self.cosine is not None:
            raise HiExpError("both max_height and cosine are set for a level; give one of them")


def summarise(
    entries: Sequence[Entry],
    level: Level,
    distiller: Distiller,
    encoder: Encoder,
    config: LevelConfig,
    dropped: Counter[str],
    confirm: bool = False,
) -> tuple[list[Entry], float]:
    """Return the entries of `level` above these, and the height that made the clusters; count what is left out in `dropped`.

    `confirm` also asks the distiller, yes or no, whether a summary holds for each of its members.
    """
    if not entries:
        return [], config.max_height or 0.0
    titles_E_D = encoder.encode_passages([entry.title for entry in entries])
    tree = linkage_tree(with_shape(titles_E_D, entries), config.linkage)
    height = _height(tree, config)
    groups: dict[int, list[int]] = {}
    for row, label in enumerate(tree.cut(height).tolist()):
        groups.setdefault(label, []).append(row)
    # In a small bank no two may be close: then all of them together make the one entry above.
    large = [group for group in groups.values() if len(group) >= config.min_size] or [list(range(len(entries)))]
    dropped[f"{level} clusters below {config.min_size} entries"] += sum(len(group) < config.min_size for group in groups.values())
    # The most telling members first: a distiller reads as many as fit.
    large = [[group[i] for i in spread_order(titles_E_D[group])] for group in large]
    groups_of = [[entries[row] for row in group] for group in large]

    def parents_of(drafts: Sequence[Draft | None]) -> list[Entry]:
        written = _admitted(drafts, large, entries, level, dropped)
        written = _with_fitting_titles(written, entries, titles_E_D, level, encoder, dropped)
        holds = _support(written, entries, titles_E_D, encoder, config, distiller if confirm else None)
        return _over_supporters(written, holds, entries, level, config, dropped)

    parents = parents_of(distiller.summarise(groups_of, level))
    if not parents and not isinstance(distiller, RulesDistiller):
        # A level that is missing is missed in every episode: the templates write what the model cannot.
        parents = parents_of(RulesDistiller().summarise(groups_of, level))
        dropped[f"{level} of the distiller, all of them; written by rule instead"] += len(parents)
    merged = merge(parents, encoder, _ANY, config.merge_cosine)
    dropped[f"{level} near-duplicates merged"] += len(parents) - len(merged)
    return number(merged, level), height


def _admitted(
    drafts: Sequence[Draft | None], groups: Sequence[Sequence[int]], entries: Sequence[Entry], level: Level, dropped: Counter[str]
) -> list[tuple[Draft, list[int]]]:
    """Pair the drafts that pass the gates with their members; of None the distiller counts the reasons."""
    admitted = []
    for draft, group in zip(drafts, groups, strict=True):
        result = admit_summary(draft, [entries[row] for row in group]) if draft is not None else None
        if isinstance(result, Draft):
            admitted.append((result, sorted(group)))
        elif result is not None:
            dropped[f"{level} {result}"] += 1
    return admitted


def _with_fitting_titles(
    written: Sequence[tuple[Draft, list[int]]],
    entries: Sequence[Entry],
    titles_E_D: Vectors,
    level: Level,
    encoder: Encoder,
    dropped: Counter[str],
) -> list[tuple[Draft, list[int]]]:
    """Put the kind of question most members are of in the place of a title that fits other groups, is one member's, or is advice."""
    if not written:
        return []
    kinds_N_D = np.stack([titles_E_D[group].mean(axis=0) for _, group in written])
    kinds_N_D /= np.maximum(np.linalg.norm(kinds_N_D, axis=1, keepdims=True), 1e-12)
    near = fitting(encoder.encode_passages([draft.title for draft, _ in written]), kinds_N_D)
    told = [[entries[row].title for row in group] for _, group in written]
    one_members = [any(is_part_of(draft.title, title) for title in titles) for (draft, _), titles in zip(written, told, strict=True)]
    fits = [fit and not one and not is_advice(draft) for fit, one, (draft, _) in zip(near, one_members, written, strict=True)]
    dropped[f"{level} titles that do not tell the kind of question, replaced"] += fits.count(False)
    computed = [advice_over([entries[row] for row in group], level).title for _, group in written]
    return [
        (draft if fit else replace(draft, title=title), group) for (draft, group), title, fit in zip(written, computed, fits, strict=True)
    ]


def _support(
    written: Sequence[tuple[Draft, list[int]]],
    entries: Sequence[Entry],
    titles_E_D: Vectors,
    encoder: Encoder,
    config: LevelConfig,
    asked: Distiller | None,
) -> list[list[bool]]:
    """Return for each draft which of its members it holds for, by cosine and, if there is somebody to ask, by their word."""
    if not written:
        return []
    summaries_S_D = encoder.encode_passages([f"{draft.title} {draft.description}" for draft, _ in written])
    groups = [group for _, group in written]
    holds = [found.tolist() for found in supporters(summaries_S_D, titles_E_D, groups, config.support)]
    if asked is None:
        return holds
    candidates = [(draft, zip(group, held, strict=True)) for (draft, group), held in zip(written, holds, strict=True)]
    pairs = [(draft, entries[row]) for draft, rows in candidates for row, one in rows if one]
    said = iter(asked.confirm(pairs))
    return [[one and next(said) for one in held] for held in holds]


def _over_supporters(
    written: Sequence[tuple[Draft, list[int]]],
    holds: Sequence[Sequence[bool]],
    entries: Sequence[Entry],
    level: Level,
    config: LevelConfig,
    dropped: Counter[str],
) -> list[Entry]:
    """Make parents of drafts, each over those of its members that support it; a summary that too few support is left out."""
    parents = []
    for (draft, group), held in zip(written, holds, strict=True):
        members = [entries[row] for row, one in zip(group, held, strict=True) if one]
        if len(members) < min(config.min_size, len(group)):
            dropped[f"{level} that its members do not support"] += 1
            continue
        dropped[f"{level} members detached, which did not support it"] += len(group) - len(members)
        parents.append(parent(draft, level, members))
    return parents


def with_shape(vectors_E_D: Vectors, entries: Sequence[Entry]) -> Vectors:
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
    return height_of_cosine(config.cosine, config.linkage) if config.cosine is not None else height_for(tree, config.cluster_size)
