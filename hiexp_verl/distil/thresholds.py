"""The thresholds of a HEK, from its own data: the minimum score of a match, and the heights at which entries are clustered.

Minimum score: the paper's 0.8 belongs to its encoder. Here it is a percentile of the cosines between each query and the titles
that were distilled from *other* questions: what lies above it is closer than chance. The prompt has none, as in the paper: a
question always gets the top k of E2 and E3 (`hiexp.prompt.min_score` sets one by hand).

Height: a Ward height is not a cosine, and grows with the size of the clusters. Each row of the table is an average cluster size
with its height and the quality of the clusters: the silhouette (how much closer an entry is to its own cluster than to the next,
cosine distance) and the stability (adjusted Rand index between the clusters of all entries and those of four fifths of them, at
the same height).
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from hiexp_verl.distil.cluster import Linkage, height_for, height_of_cosine, linkage_tree, threshold_of
from hiexp_verl.distil.summarise import main_shape, with_shape
from hiexp_verl.distil.validate import evenly_spaced
from hiexp_verl.domains import domain_for
from hiexp_verl.domains.domain import Domain
from hiexp_verl.domains.search import SEARCH
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.retrieve import Retriever
from hiexp_verl.hek.store import HEK
from hiexp_verl.io.files import make_folder, writing
from hiexp_verl.models.encoder import Encoder, Vectors
from hiexp_verl.types import Level, Source

_CHUNK = 1024  # queries compared at a time: bounds memory at 16,000 queries x 16,000 titles
_BINS = 20_000  # of width 1e-4: a percentile is exact to that
_MOST_QUERIES = 20_000
Criterion = Literal["size", "silhouette", "stability", "percentile"]
SIZES = (1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0)
PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
# Average sizes that a criterion may choose: one or two clusters of all entries are stable, but not informative.
SENSIBLE = (2.0, 10.0)
MIN_ENTRIES = 3
PLOT_FORMATS = (".svg", ".png", ".pdf")
_PERCENTILE = 99.0  # of the cosines of random pairs, for the criterion of that name
_MOST_ROWS = 2_000  # for silhouette and stability, whose cost is quadratic
_SUBSAMPLES = 5
_PAIRS = 200_000
_CLUSTERED: tuple[Level, ...] = ("e1", "e2")


def calibrate_score(
    queries_N_D: Vectors,
    query_questions: Sequence[str],
    titles_E_D: Vectors,
    title_questions: Sequence[Sequence[str]],
    percentile: float = 95.0,
) -> float:
    """Return the percentile (0 to 100) of the cosines between queries and the titles of other questions (a cosine, 4 digits).

    Args:
        queries_N_D: unit vectors of queries; `query_questions` has the id of the question of each.
        titles_E_D: unit vectors of titles; `title_questions` has the ids of the questions that each was distilled from.

    Raises:
        HiExpError: the percentile is out of range, or there is no pair of different questions.
    """
    if not 0 <= percentile <= 100:
        raise HiExpError(f"percentile {percentile} is out of range; give a number from 0 to 100")
    histogram_B = np.zeros(_BINS, dtype=np.int64)
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, questions in enumerate(title_questions):
        for question in questions:
            rows_of[question].append(row)
    for start in range(0, len(queries_N_D), _CHUNK):
        cosines_C_E = queries_N_D[start : start + _CHUNK] @ titles_E_D.T
        other_C_E = np.ones(cosines_C_E.shape, dtype=bool)
        for row, question in enumerate(query_questions[start : start + _CHUNK]):
            other_C_E[row, rows_of.get(question, [])] = False
        bins = np.clip(((cosines_C_E[other_C_E] + 1.0) * (_BINS / 2)).astype(np.int64), 0, _BINS - 1)
        histogram_B += np.bincount(bins, minlength=_BINS)
    total = int(histogram_B.sum())
    if total == 0:
        raise HiExpError("no query and title of different questions to calibrate with; give trajectories of at least two questions")
    reached = int(np.searchsorted(np.cumsum(histogram_B), max(1, np.ceil(total * percentile / 100))))
    return round(-1.0 + (reached + 1) * 2.0 / _BINS, 4)


def thresholds(
    hek: HEK,
    sources: Sequence[Source],
    encoder: Encoder,
    percentile: float = 95.0,
    fire_rates: tuple[float, float] = (0.3, 0.5),
    domain: Domain = SEARCH,
) -> tuple[dict[str, float], float]:
    """Return the thresholds, and the share of the sources' searches that would get an E1 of another question under them.

    `tool_min_score` is a percentile of the cosines with titles of E1 of other questions, absent where no such pair exists.
    That is of pairs, and a search gets the best of all E1: of many, one passes by chance. It is raised until no more than the
    higher of `fire_rates` of the searches get one. Where all questions are alike, "other" is not "unrelated", and the
    percentile would silence E1: it is then lowered until the lower of `fire_rates` get one. Without a tool, E1 are found by the
    question: its kind is the one search of an episode.
    """
    if domain.tool is not None:
        queries = [(source.question_id, query) for source in sources for query in source.queries]
    else:
        queries = list(dict.fromkeys((source.question_id, domain.kind_of(source.question) or source.question) for source in sources))
    queries = queries[evenly_spaced(len(queries), _MOST_QUERIES)]
    found = {"percentile": percentile}
    rows = [row for row, entry in enumerate(hek.entries) if entry.level == "e1"]
    questions = [hek.entries[row].questions for row in rows]
    if any(question not in own for question, _ in queries for own in questions):
        vectors_N_D = encoder.encode_queries([query for _, query in queries])
        found["tool_min_score"] = calibrate_score(vectors_N_D, [q for q, _ in queries], hek.vectors_E_D[rows], questions, percentile)
    best_N = _best_scores(hek, encoder, queries)
    if "tool_min_score" in found and len(best_N):
        lowest, highest = fire_rates
        at_most = float(np.quantile(best_N, 1 - highest, method="higher"))
        found["tool_min_score"] = max(found["tool_min_score"], math.floor(at_most * 1e4) / 1e4)
        at_least = float(np.quantile(best_N, 1 - lowest, method="lower"))
        found["tool_min_score"] = min(found["tool_min_score"], math.floor(at_least * 1e4) / 1e4)
    return found, float((best_N >= found.get("tool_min_score", -1.0)).mean()) if len(best_N) else 0.0


def _best_scores(hek: HEK, encoder: Encoder, queries: Sequence[tuple[str, str]]) -> np.ndarray:
    """Return for each query the cosine of the E1 it would get, own question left out; -2 where it would get none."""
    if not queries or not hek.levels["e1"]:
        return np.zeros(0)
    found = Retriever(hek, encoder).retrieve([query for _, query in queries], ["e1"], 1, None, [question for question, _ in queries])
    return np.array([hits[0].score if hits else -2.0 for hits in found])


@dataclass(frozen=True)
class Candidate:
    """One height and the quality of its clusters; NaN where there are too few entries or clusters."""

    cluster_size: float
    height: float
    clusters: int
    silhouette: float
    stability: float


@dataclass(frozen=True)
class Calibration:
    """The candidates, the cosines of random pairs by percentile, and the height chosen."""

    candidates: tuple[Candidate, ...]
    random_pairs: dict[str, float]
    by: Criterion
    height: float

    def table(self) -> str:
        """Return the candidates as a table, the chosen one marked."""
        lines = ["  size  height  clusters  silhouette  stability"]
        for c in self.candidates:
            mark = "  <- chosen" if abs(c.height - self.height) < 1e-9 else ""
            lines.append(f"{c.cluster_size:6.1f} {c.height:7.4f} {c.clusters:9d} {c.silhouette:11.3f} {c.stability:10.3f}{mark}")
        cosines = ", ".join(f"{p}%: {cosine:.3f}" for p, cosine in self.random_pairs.items())
        return "\n".join([*lines, f"cosine of random pairs  {cosines}", f"height by {self.by}: {self.height:g}"])


def calibrate_height(
    vectors_E_D: Vectors, by: Criterion = "size", cluster_size: float = 4.0, linkage: Linkage = "ward", known_groups: int = 1
) -> Calibration:
    """Choose the height at which entries are clustered.

    Args:
        vectors_E_D: unit vectors, float32.
        by: `size` gives clusters of about `cluster_size` entries; `silhouette` and `stability` take the best candidate of 2 to 10
            entries; `percentile` takes the height at which a pair is merged whose cosine only 1 in 100 random pairs reaches.
        known_groups: groups that were put into the vectors; that many clusters are stable, and say nothing of the data.

    Raises:
        HiExpError: fewer than 3 entries, rows that are not unit vectors, or too few entries for the criterion.
    """
    tree = linkage_tree(vectors_E_D, linkage)
    if tree.leaves < MIN_ENTRIES:
        raise HiExpError(f"{tree.leaves} vectors are too few to calibrate with; give at least {MIN_ENTRIES}")
    draw = np.random.default_rng(0)
    heights = [(size, height_for(tree, size)) for size in SIZES if size <= tree.leaves]
    candidates = tuple(Candidate(size, height, *_quality(vectors_E_D, tree.cut(height), height, linkage, draw)) for size, height in heights)
    pairs = _random_cosines(vectors_E_D, draw)
    random_pairs = {f"{p:g}": round(float(np.percentile(pairs, p)), 4) for p in PERCENTILES}
    if by == "size":
        height = height_for(tree, cluster_size)
    elif by == "percentile":
        height = round(height_of_cosine(float(np.clip(np.percentile(pairs, _PERCENTILE), -1, 1)), linkage), 6)
    else:
        sensible = [c for c in candidates if SENSIBLE[0] <= c.cluster_size <= SENSIBLE[1] and c.clusters > known_groups]
        scored = [(score, c.height) for c in sensible if np.isfinite(score := getattr(c, by))]
        if not scored:
            raise HiExpError(f"too few entries ({tree.leaves}) for the {by}; use --by size")
        height = max(scored)[1]
    return Calibration(candidates, random_pairs, by, height)


def _quality(
    vectors_E_D: Vectors, labels_E: np.ndarray, height: float, linkage: Linkage, draw: np.random.Generator
) -> tuple[int, float, float]:
    """Return the number of clusters, their silhouette and their stability."""
    from sklearn.metrics import silhouette_score

    rows = np.sort(draw.permutation(len(labels_E))[:_MOST_ROWS])
    defined = 1 < len(np.unique(labels_E[rows])) < len(rows)
    silhouette = float(silhouette_score(vectors_E_D[rows], labels_E[rows], metric="cosine")) if defined else float("nan")
    return int(labels_E.max()) + 1, silhouette, _stability(vectors_E_D[rows], height, linkage, draw)


def _stability(vectors_E_D: Vectors, height: float, linkage: Linkage, draw: np.random.Generator) -> float:
    from sklearn.metrics import adjusted_rand_score

    whole_E = linkage_tree(vectors_E_D, linkage).cut(height)
    if whole_E.max() == 0:  # one cluster of all
        return float("nan")
    scores = []
    for _ in range(_SUBSAMPLES):
        rows = np.sort(draw.permutation(len(vectors_E_D))[: round(0.8 * len(vectors_E_D))])
        scores.append(adjusted_rand_score(whole_E[rows], linkage_tree(vectors_E_D[rows], linkage).cut(height)))
    return float(np.mean(scores))


def _random_cosines(vectors_E_D: Vectors, draw: np.random.Generator) -> np.ndarray:
    left_P = draw.integers(0, len(vectors_E_D), _PAIRS)
    right_P = (left_P + draw.integers(1, len(vectors_E_D), _PAIRS)) % len(vectors_E_D)  # never a row with itself
    chunks = zip(np.array_split(left_P, 20), np.array_split(right_P, 20), strict=True)  # bounds memory
    return np.concatenate([np.einsum("pd,pd->p", vectors_E_D[a], vectors_E_D[b]) for a, b in chunks])


def plot(calibrations: dict[str, Calibration], path: Path) -> None:
    """Draw silhouette and stability over the height, one row per level; the suffix of `path` gives the format.

    Raises:
        HiExpError: matplotlib is not installed, another suffix, nothing to draw, or `path` cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise HiExpError("plots need matplotlib; pip install matplotlib") from error
    if path.suffix.lower() not in PLOT_FORMATS or path.is_dir():
        raise HiExpError(f"--plot {path} does not name a file for a plot; end the name in {', '.join(PLOT_FORMATS)}")
    if not calibrations:
        raise HiExpError("no level has enough entries to choose a height, so there is nothing to plot; leave --plot out")
    make_folder(path.parent)
    figure = Figure(figsize=(9, 3.2 * len(calibrations)), layout="constrained")
    axes = figure.subplots(len(calibrations), 1, squeeze=False)[:, 0]
    for axis, (name, calibration) in zip(axes, calibrations.items(), strict=True):
        heights = [c.height for c in calibration.candidates]
        axis.plot(heights, [c.silhouette for c in calibration.candidates], "o-", label="silhouette")
        axis.plot(heights, [c.stability for c in calibration.candidates], "s-", label="stability")
        axis.axvline(calibration.height, color="black", linestyle="--", label=f"chosen by {calibration.by}: {calibration.height:.3f}")
        for c in calibration.candidates:
            axis.annotate(f"{c.cluster_size:g}", (c.height, 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=8)
        axis.set(xlabel="merge height (above: entries per cluster)", ylabel="score", title=f"{name}\n")
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    with writing(path):
        figure.savefig(path)


@dataclass(frozen=True)
class Recalibrated:
    """The HEK with its new thresholds, and how the heights were chosen, by the name of the threshold."""

    hek: HEK
    heights: dict[str, Calibration]
    tool_fire_rate: float


def recalibrate(
    hek: HEK,
    encoder: Encoder,
    *,
    by: Criterion = "size",
    cluster_size: float = 4.0,
    linkage: Linkage = "ward",
    percentile: float = 95.0,
    domain: str | None = None,
) -> Recalibrated:
    """Choose minimum scores from the queries and questions that the HEK remembers, and heights from its entries.

    A level of fewer than 3 entries keeps its height, and so does the other linkage. Entries stay as they are: the heights
    hold for the next build. `domain` names one that is not of the package.

    Raises:
        HiExpError: the encoder is not the HEK's, or its domain has to be named; see `calibrate_height`.
    """
    hek.check_encoder(encoder.identity)
    its_domain = domain_for(hek.header.domain, domain)
    heights: dict[str, Calibration] = {}
    for level in _CLUSTERED:
        rows = [row for row, entry in enumerate(hek.entries) if entry.level == level]
        if len(rows) >= MIN_ENTRIES:
            entries = [hek.entries[row] for row in rows]
            vectors_E_D = with_shape(hek.vectors_E_D[rows], entries)
            shapes = len({main_shape(entry) for entry in entries})
            heights[threshold_of(level, linkage)] = calibrate_height(vectors_E_D, by, cluster_size, linkage, shapes)
    scores, fire_rate = thresholds(hek, hek.sources, encoder, percentile, domain=its_domain)
    header = replace(
        hek.header,
        thresholds=hek.header.thresholds | scores | {name: calibration.height for name, calibration in heights.items()},
        parents=(hek.content_hash(),),
        reason=f"calibrated by {by} with {linkage} linkage, percentile {percentile:g}",
        content_hash="",
    )
    return Recalibrated(replace(hek, header=header), heights, fire_rate)
