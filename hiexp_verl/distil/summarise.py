"""Entries of one level become fewer entries of the next: cluster their titles, summarise each cluster, keep the members that support it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hiexp_verl.distil.cluster import Linkage, height_for, linkage_tree
from hiexp_verl.distil.distillers import Distiller
from hiexp_verl.distil.draft import Draft
from hiexp_verl.distil.entries import merge_near_duplicates, number, parent
from hiexp_verl.distil.rules import advice_over
from hiexp_verl.distil.validate import admit_summary, chance, closer_than_chance, evenly_spaced, is_advice, is_part_of
from hiexp_verl.domains.domain import Domain
from hiexp_verl.models.encoder import Encoder, Vectors
from hiexp_verl.types import Entry, Kind, Level

MIN_SIZE = 2  # smaller clusters stay without a parent
SUPPORT = 50.0  # percentile of the cosines with entries of other clusters that a member must exceed to stay under its summary
_MOST_OTHERS = 2_000  # of those; a percentile needs no more
_OF_TWO = {"compare", "common", "verify"}  # shapes of questions about two things


@dataclass(frozen=True)
class LevelConfig:
    """How entries are clustered into the next level."""

    cluster_size: float = 4.0  # average, without a height
    max_height: float | None = None  # of the merges
    linkage: Linkage = "ward"
    confirm: bool = False  # also ask the distiller whether a summary holds for each of its members


@dataclass(frozen=True)
class _Summary:
    """A draft and the rows of the entries it summarises."""

    draft: Draft
    rows: list[int]
    tags: tuple[str, ...] = ()


def level_above(
    entries: Sequence[Entry], level: Level, distiller: Distiller, encoder: Encoder, config: LevelConfig
) -> tuple[list[Entry], float, Counter[str]]:
    """Return the entries of `level` above these, the height that made the clusters, and the counts of what was left out."""
    if not entries:
        return [], config.max_height or 0.0, Counter()
    work = _Summarising(entries, level, encoder, distiller.domain)
    clusters, height = work.clusters(config)
    drafts = distiller.summarise([work.members(rows) for rows in clusters], level)
    summaries = work.with_fitting_titles(work.admitted(drafts, clusters))
    parents = work.parents(summaries, work.supporting_members(summaries, distiller if config.confirm else None))
    merged = merge_near_duplicates(parents, encoder)
    work.dropped["near_duplicate"] += len(parents) - len(merged)
    return number(merged, level), height, Counter({f"{level}.{reason}": count for reason, count in work.dropped.items()})


class _Summarising:
    """From entries to the level above them; `dropped` counts what is left out, by reason."""

    def __init__(self, entries: Sequence[Entry], level: Level, encoder: Encoder, domain: Domain) -> None:
        self.entries, self.encoder, self.domain = entries, encoder, domain
        self.level: Level = level
        self.titles_E_D = encoder.encode_passages([entry.title for entry in entries])
        self.dropped: Counter[str] = Counter()

    def members(self, rows: Sequence[int]) -> list[Entry]:
        """Return the entries of these rows."""
        return [self.entries[row] for row in rows]

    def clusters(self, config: LevelConfig) -> tuple[list[list[int]], float]:
        """Return the rows of each cluster, in `spread_order` (a distiller reads as many as fit), and the height that made them."""
        tree = linkage_tree(with_shape(self.titles_E_D, self.entries), config.linkage)
        height = config.max_height if config.max_height is not None else height_for(tree, config.cluster_size)
        clusters: dict[int, list[int]] = {}
        for row, label in enumerate(tree.cut(height).tolist()):
            clusters.setdefault(label, []).append(row)
        # In a small bank no two may be close: then all of them together make the one entry above.
        large = [rows for rows in clusters.values() if len(rows) >= MIN_SIZE] or [list(range(len(self.entries)))]
        self.dropped["no_cluster"] += len(self.entries) - sum(map(len, large))
        return [[rows[i] for i in spread_order(self.titles_E_D[rows])] for rows in large], height

    def admitted(self, drafts: Sequence[Draft | None], clusters: Sequence[Sequence[int]]) -> list[_Summary]:
        """Return the drafts that pass the gates, and what the rules write for clusters whose draft does not.

        A cluster without a summary would be missed in every episode; what cannot be written is computed, tagged so and counted.
        """
        summaries = []
        for draft, rows in zip(drafts, clusters, strict=True):
            members = self.members(rows)
            result = admit_summary(draft, members, self.level, self.domain) if draft is not None else None
            if isinstance(result, str):
                self.dropped[result] += 1
            if isinstance(result, Draft):
                summaries.append(_Summary(result, sorted(rows)))
            elif isinstance(
                computed := admit_summary(advice_over(members, self.level, self.domain), members, self.level, self.domain), Draft
            ):
                summaries.append(_Summary(computed, sorted(rows), ("written:rules",)))
                self.dropped["by_rule"] += 1
        return summaries

    def with_fitting_titles(self, summaries: Sequence[_Summary]) -> list[_Summary]:
        """Replace each title that fits other clusters, is one member's, or is advice, by the kind of question of most members."""
        if not summaries:
            return []
        kinds_N_D = np.stack([self.titles_E_D[each.rows].mean(axis=0) for each in summaries])
        kinds_N_D /= np.maximum(np.linalg.norm(kinds_N_D, axis=1, keepdims=True), 1e-12)
        near = closer_than_chance(self.encoder.encode_passages([each.draft.title for each in summaries]), kinds_N_D)
        fitting = []
        for each, fits in zip(summaries, near.tolist(), strict=True):
            members = self.members(each.rows)
            if not fits or is_advice(each.draft) or any(is_part_of(each.draft.title, member.title) for member in members):
                title = advice_over(members, self.level, self.domain).title
                self.dropped["title_replaced"] += title != each.draft.title
                each = replace(each, draft=replace(each.draft, title=title))
            fitting.append(each)
        return fitting

    def supporting_members(self, summaries: Sequence[_Summary], asked: Distiller | None) -> list[list[Entry]]:
        """Return the members that each summary holds for: by cosine, by the kind of their question and, if `asked`, by its answer."""
        summaries_S_D = self.encoder.encode_passages([f"{each.draft.title} {each.draft.description}" for each in summaries])
        near = supporters(summaries_S_D, self.titles_E_D, [each.rows for each in summaries])
        held = []
        for each, near_G in zip(summaries, near, strict=True):
            other_kind = of_other_kind(self.members(each.rows))
            members = self.members([row for row, is_near in zip(each.rows, near_G, strict=True) if is_near])
            held.append([member for member in members if member.id not in other_kind])
        if asked is None:
            return held
        pairs = [(each.draft, member) for each, members in zip(summaries, held, strict=True) for member in members]
        confirmed = iter(asked.confirm(pairs))
        return [[member for member in members if next(confirmed)] for members in held]

    def parents(self, summaries: Sequence[_Summary], held: Sequence[Sequence[Entry]]) -> list[Entry]:
        """Return the summaries as parents of the members that support them; one that too few support is left out."""
        parents = []
        for each, members in zip(summaries, held, strict=True):
            if len(members) < min(MIN_SIZE, len(each.rows)):
                self.dropped["unsupported"] += 1
                continue
            self.dropped["detached"] += len(each.rows) - len(members)
            # Most of them pitfalls make a pitfall, whatever the distiller called it.
            kind: Kind = "pitfall" if 2 * sum(member.kind == "pitfall" for member in members) > len(members) else "guide"
            parents.append(parent(replace(each.draft, kind=kind), self.level, members, each.tags))
        return parents


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
    """Return the ids of members about one thing where most are about two, or the reverse.

    Titles alike in topic bring them together, but the advice for the one kind contradicts that for the other.
    """
    shapes_of = {member.id: set(member.shapes) for member in members if member.shapes}
    about_two = {member for member, shapes in shapes_of.items() if 2 * len(shapes & _OF_TWO) >= len(shapes)}
    about_one = set(shapes_of) - about_two
    return about_one if len(about_two) >= len(about_one) else about_two


def supporters(summaries_S_D: Vectors, members_E_D: Vectors, groups: Sequence[Sequence[int]]) -> list[NDArray[np.bool_]]:
    """Return for each summary which rows of its group support it.

    A member supports the summary when its cosine with it is above chance: above the `SUPPORT` percentile of the cosines between
    this summary and the entries of all other groups. A single group has nothing to be compared with and is kept whole.
    """
    sample_M = np.arange(len(members_E_D))[evenly_spaced(len(members_E_D), _MOST_OTHERS)]
    scores_S_M = summaries_S_D @ members_E_D[sample_M].T
    return [
        members_E_D[list(group)] @ summary_D > chance(scores_M, ~np.isin(sample_M, list(group)), SUPPORT)
        for summary_D, scores_M, group in zip(summaries_S_D, scores_S_M, groups, strict=True)
    ]


def main_shape(entry: Entry) -> tuple[str, ...]:
    """Return the main shape of an entry's questions, and the number of searches of its plan if it has one."""
    return (*entry.shapes[:1], *map(str, entry.hops[:1]))


def with_shape(vectors_E_D: Vectors, entries: Sequence[Entry]) -> Vectors:
    """Append the shape of the question as axes, so that a pair's cosine is the mean of title cosine and same shape (0 or 1).

    Titles alone put "Are both from the same state?" beside "In what city is the company ...?", and two hops beside three: alike
    in topic, unlike in the searches they take.
    """
    shapes = [main_shape(entry) for entry in entries]
    axes = sorted(set(shapes))
    one_hot_E_S = np.array([[shape == axis for axis in axes] for shape in shapes], dtype=np.float32)
    return (np.hstack([vectors_E_D, one_hot_E_S]) / np.sqrt(2)).astype(np.float32)
