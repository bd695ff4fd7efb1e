"""Entries of one level become fewer entries of the next: cluster their titles, summarise each cluster, keep the members that fit."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hiexp_verl.distil.cluster import Linkage, Tree, height_for, height_of_cosine, linkage_tree
from hiexp_verl.distil.distillers import Distiller
from hiexp_verl.distil.draft import Draft
from hiexp_verl.distil.entries import merge_near_duplicates, number, parent
from hiexp_verl.distil.rules import advice_over
from hiexp_verl.distil.validate import admit_summary, chance, closer_than_chance, evenly_spaced, is_advice, is_part_of
from hiexp_verl.errors import HiExpError
from hiexp_verl.models.encoder import Encoder, Vectors
from hiexp_verl.types import Entry, Kind, Level

_MOST_STRANGERS = 2_000  # a percentile needs no more
_OF_TWO = {"compare", "common", "verify"}  # shapes of questions that set two things side by side


def spread_order(vectors_E_D: Vectors) -> list[int]:
    """Return the rows in the order in which they show most of the group: the medoid, then always the one farthest from those before."""
    similarity_E_E = vectors_E_D @ vectors_E_D.T
    order = [int(similarity_E_E.sum(axis=1).argmax())]
    nearest_E = similarity_E_E[order[0]].copy()
    while len(order) < len(vectors_E_D):
        nearest_E[order] = np.inf
        order.append(int(nearest_E.argmin()))
        nearest_E = np.minimum(nearest_E, similarity_E_E[order[-1]])
    return order


def of_other_kind(members: Sequence[Entry]) -> set[str]:
    """Return the ids of members about one thing where most are about two, or the other way round.

    Titles alike in topic bring them together, but the advice for the one kind contradicts that for the other.
    """
    shapes_of = {member.id: set(member.shapes) for member in members}
    about_two = {member for member, shapes in shapes_of.items() if shapes and 2 * len(shapes & _OF_TWO) >= len(shapes)}
    about_one = {member for member, shapes in shapes_of.items() if shapes} - about_two
    return about_one if len(about_two) >= len(about_one) else about_two


def supporters(summaries_S_D: Vectors, members_E_D: Vectors, groups: Sequence[Sequence[int]], percentile: float) -> list[NDArray[np.bool_]]:
    """Return for each summary which rows of its group support it.

    A member supports the summary when its cosine with it lies above chance: above the percentile of the cosines between
    this summary and the entries of all other groups. A single group has nothing to be compared with and is kept whole.
    """
    sample_M = np.arange(len(members_E_D))[evenly_spaced(len(members_E_D), _MOST_STRANGERS)]
    scores_S_M = summaries_S_D @ members_E_D[sample_M].T
    found = []
    for summary_D, scores_M, group in zip(summaries_S_D, scores_S_M, groups, strict=True):
        strangers_M = ~np.isin(sample_M, list(group))
        found.append(members_E_D[list(group)] @ summary_D > chance(scores_M, strangers_M, percentile))
    return found


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


@dataclass(frozen=True)
class _Summary:
    """A draft and the rows of the entries it is about."""

    draft: Draft
    rows: list[int]
    tags: tuple[str, ...] = ()


def level_above(
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
    alone = len(entries) - sum(map(len, large))
    dropped[f"{level}.no_cluster"] += alone
    # The most telling members first: a distiller reads as many as fit.
    large = [[group[i] for i in spread_order(titles_E_D[group])] for group in large]
    drafts = distiller.summarise([[entries[row] for row in group] for group in large], level)
    written = _admitted(drafts, large, entries, level, dropped)
    written = _with_fitting_titles(written, entries, titles_E_D, level, encoder, dropped)
    holds = _support(written, entries, titles_E_D, encoder, config, distiller if confirm else None)
    parents = _over_supporters(written, holds, entries, level, config, dropped)
    merged = merge_near_duplicates(parents, encoder, _ANY, config.merge_cosine)
    dropped[f"{level}.near_duplicate"] += len(parents) - len(merged)
    return number(merged, level), height


def _admitted(
    drafts: Sequence[Draft | None], groups: Sequence[Sequence[int]], entries: Sequence[Entry], level: Level, dropped: Counter[str]
) -> list[_Summary]:
    """Put the drafts that pass the gates over their members, and what the rules say over those whose draft does not.

    A cluster without a summary would be missed in every episode; what cannot be written is computed, tagged so and counted.
    """
    admitted = []
    for draft, group in zip(drafts, groups, strict=True):
        members = [entries[row] for row in group]
        result = admit_summary(draft, members, level) if draft is not None else None
        if isinstance(result, str):
            dropped[f"{level}.{result}"] += 1
        if isinstance(result, Draft):
            admitted.append(_Summary(result, sorted(group)))
        elif isinstance(computed := admit_summary(advice_over(members, level), members, level), Draft):
            admitted.append(_Summary(computed, sorted(group), ("written:rules",)))
            dropped[f"{level}.by_rule"] += 1
    return admitted


def _with_fitting_titles(
    written: Sequence[_Summary], entries: Sequence[Entry], titles_E_D: Vectors, level: Level, encoder: Encoder, dropped: Counter[str]
) -> list[_Summary]:
    """Put the kind of question most members are of in the place of a title that fits other groups, is one member's, or is advice."""
    if not written:
        return []
    kinds_N_D = np.stack([titles_E_D[each.rows].mean(axis=0) for each in written])
    kinds_N_D /= np.maximum(np.linalg.norm(kinds_N_D, axis=1, keepdims=True), 1e-12)
    near = closer_than_chance(encoder.encode_passages([each.draft.title for each in written]), kinds_N_D)
    kept = []
    for each, fits in zip(written, near.tolist(), strict=True):
        members = [entries[row] for row in each.rows]
        if fits and not is_advice(each.draft) and not any(is_part_of(each.draft.title, member.title) for member in members):
            kept.append(each)
        else:
            kept.append(replace(each, draft=replace(each.draft, title=advice_over(members, level).title)))
            dropped[f"{level}.title_replaced"] += kept[-1] != each
    return kept


def _support(
    written: Sequence[_Summary],
    entries: Sequence[Entry],
    titles_E_D: Vectors,
    encoder: Encoder,
    config: LevelConfig,
    asked: Distiller | None,
) -> list[list[bool]]:
    """Return for each summary which of its members it holds for, by cosine and, if there is somebody to ask, by their word."""
    if not written:
        return []
    summaries_S_D = encoder.encode_passages([f"{each.draft.title} {each.draft.description}" for each in written])
    near = supporters(summaries_S_D, titles_E_D, [each.rows for each in written], config.support)
    holds = [
        [bool(one) and entries[row].id not in strange for one, row in zip(found, each.rows, strict=True)]
        for each, found in zip(written, near, strict=True)
        for strange in [of_other_kind([entries[row] for row in each.rows])]
    ]
    if asked is None:
        return holds
    candidates = [(each.draft, zip(each.rows, held, strict=True)) for each, held in zip(written, holds, strict=True)]
    pairs = [(draft, entries[row]) for draft, rows in candidates for row, one in rows if one]
    confirmed = iter(asked.confirm(pairs))
    return [[one and next(confirmed) for one in held] for held in holds]


def _over_supporters(
    written: Sequence[_Summary],
    holds: Sequence[Sequence[bool]],
    entries: Sequence[Entry],
    level: Level,
    config: LevelConfig,
    dropped: Counter[str],
) -> list[Entry]:
    """Make parents of summaries, each over those of its members that support it; one that too few support is left out."""
    parents = []
    for each, held in zip(written, holds, strict=True):
        members = [entries[row] for row, one in zip(each.rows, held, strict=True) if one]
        if len(members) < min(config.min_size, len(each.rows)):
            dropped[f"{level}.unsupported"] += 1
            continue
        dropped[f"{level}.detached"] += len(each.rows) - len(members)
        # Pitfalls most of them make a pitfall, whatever the distiller called it.
        kind: Kind = "pitfall" if 2 * sum(member.kind == "pitfall" for member in members) > len(members) else "guide"
        made = parent(replace(each.draft, kind=kind), level, members)
        parents.append(replace(made, tags=made.tags + each.tags))
    return parents


def main_shape(entry: Entry) -> tuple[str, ...]:
    """Return the main shape of an entry's questions, and the number of searches of its plan if it has one."""
    return (*entry.shapes[:1], *map(str, entry.hops[:1]))


def with_shape(vectors_E_D: Vectors, entries: Sequence[Entry]) -> Vectors:
    """Append the shape of the question as axes, so that a pair's cosine is the mean of title cosine and same shape (0 or 1).

    Titles alone put "Are both from the same state?" beside "In what city is the company ...?", and two hops beside three: alike
    in topic, unlike in how one goes about them.
    """
    shapes = [main_shape(entry) for entry in entries]
    axes = sorted(set(shapes))
    one_hot_E_S = np.array([[shape == axis for axis in axes] for shape in shapes], dtype=np.float32)
    return (np.hstack([vectors_E_D, one_hot_E_S]) / np.sqrt(2)).astype(np.float32)


def _height(tree: Tree, config: LevelConfig) -> float:
    if config.max_height is not None:
        return config.max_height
    return height_of_cosine(config.cosine, config.linkage) if config.cosine is not None else height_for(tree, config.cluster_size)
