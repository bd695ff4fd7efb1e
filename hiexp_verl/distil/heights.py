"""Choose a clustering height from the data: a Ward height is not a cosine, and grows with the size of the clusters.

Each row of the table is an average cluster size with its height and how good the clusters are: the silhouette (how much
closer an entry is to its own cluster than to the next, cosine distance) and the stability (do four fifths of the entries,
clustered at the same height, fall into the same clusters? adjusted Rand index). `recalibrate` stores them in a HEK.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from hiexp_verl.distil.cluster import Linkage, height_for, height_of_cosine, linkage_tree, threshold_of
from hiexp_verl.distil.summarise import main_shape, with_shape
from hiexp_verl.distil.thresholds import thresholds
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.store import HEK
from hiexp_verl.io.files import writing
from hiexp_verl.models.encoder import Encoder, Vectors
from hiexp_verl.types import Level

_WANTED = "give a .npy file of a float32 matrix (entries, dimensions) with rows of length 1"
_NORM_TOLERANCE = 1e-3


def read_unit_vectors(path: Path) -> Vectors:
    """Read a matrix of unit vectors, float32 (E, D), from a .npy file; never a pickle.

    Raises:
        HiExpError: no such file, not .npy, damaged, Python objects, another type or shape, not finite, or rows not of length 1.
    """
    vectors_E_D = _read(path)
    if vectors_E_D.dtype != np.float32:
        raise HiExpError(f"{path} holds {vectors_E_D.dtype}, not float32; save it again with .astype('float32')")
    if vectors_E_D.ndim != 2:
        raise HiExpError(f"{path} has the shape {vectors_E_D.shape}; {_WANTED}")
    odd_E = np.flatnonzero(~np.isfinite(vectors_E_D).all(axis=1))
    if len(odd_E):
        raise HiExpError(f"{path}: {len(odd_E)} rows hold NaN or infinity, the first is row {odd_E[0]}; leave them out")
    norms_E = np.linalg.norm(vectors_E_D, axis=1)
    off_E = np.flatnonzero(np.abs(norms_E - 1) > _NORM_TOLERANCE)
    if len(off_E):
        raise HiExpError(f"{path}: row {off_E[0]} has the length {norms_E[off_E[0]]:.3f}, not 1; divide each row by its length")
    return vectors_E_D


def _read(path: Path) -> np.ndarray:
    if not path.is_file():
        raise HiExpError(f"{path} {'is not a file' if path.exists() else 'does not exist'}; {_WANTED}")
    with path.open("rb") as file:
        if not file.read(6) == np.lib.format.MAGIC_PREFIX:
            raise HiExpError(f"{path} is not a .npy file; write it with numpy.save")
        file.seek(0)
        try:
            return np.lib.format.read_array(file, allow_pickle=False)
        except Exception as error:  # numpy parses the head of the file as Python and lets that parser's errors through
            if "Object arrays" in str(error):
                raise HiExpError(f"{path} holds Python objects, which are not read; {_WANTED}") from error
            raise HiExpError(f"{path} is damaged ({' '.join(str(error).split())[:200]}); write it again with numpy.save") from error


Criterion = Literal["size", "silhouette", "stability", "percentile"]
CRITERIA: tuple[Criterion, ...] = get_args(Criterion)
SIZES = (1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0)
PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
# Average sizes that a criterion may choose: one or two clusters of all entries are stable, but not informative.
SENSIBLE = (2.0, 10.0)
_MOST_ROWS = 2_000  # for silhouette and stability, whose cost is quadratic
_SUBSAMPLES = 5
_PAIRS = 200_000


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


def calibrate_height(
    vectors_E_D: Vectors,
    by: Criterion = "size",
    cluster_size: float = 4.0,
    linkage: Linkage = "ward",
    percentile: float = 99.0,
    seed: int = 0,
    known_groups: int = 1,
) -> Calibration:
    """Choose the height at which entries are clustered.

    Args:
        vectors_E_D: unit vectors, float32.
        by: `size` gives clusters of about `cluster_size` entries; `silhouette` and `stability` take the best candidate of 2 to 10 entries;
            `percentile` takes the height at which a pair is merged whose cosine only 1 in 100 random pairs reaches.
        known_groups: groups that were put into the vectors; that many clusters are stable, and say nothing of the data.

    Raises:
        HiExpError: fewer than 3 entries, rows that are not unit vectors, an unknown criterion, or too few entries for it.
    """
    if by not in CRITERIA:
        raise HiExpError(f"unknown criterion {by!r}; use one of {', '.join(CRITERIA)}")
    if len(vectors_E_D) < 3:
        raise HiExpError(f"{len(vectors_E_D)} vectors are too few to calibrate with; give at least 3")
    tree = linkage_tree(vectors_E_D, linkage)
    draw = np.random.default_rng(seed)
    sizes = [size for size in SIZES if len(vectors_E_D) / size >= 1]
    heights = [(size, height_for(tree, size)) for size in sizes]
    candidates = tuple(_candidate(vectors_E_D, tree.cut(height), size, height, linkage, draw) for size, height in heights)
    pairs = _random_cosines(vectors_E_D, draw)
    random_pairs = {f"{p:g}": round(float(np.percentile(pairs, p)), 4) for p in PERCENTILES}
    if by == "size":
        height = height_for(tree, cluster_size)
    elif by == "percentile":
        height = round(height_of_cosine(float(np.clip(np.percentile(pairs, percentile), -1, 1)), linkage), 6)
    else:
        sensible = [c for c in candidates if SENSIBLE[0] <= c.cluster_size <= SENSIBLE[1] and c.clusters > known_groups]
        scored = [(getattr(c, by), c.height) for c in sensible]
        scored = [row for row in scored if np.isfinite(row[0])]
        if not scored:
            raise HiExpError(f"too few entries ({len(vectors_E_D)}) for the {by}; calibrate by size")
        height = max(scored)[1]
    return Calibration(candidates, random_pairs, by, height)


def _candidate(
    vectors_E_D: Vectors, labels_E: np.ndarray, size: float, height: float, linkage: Linkage, draw: np.random.Generator
) -> Candidate:
    from sklearn.metrics import silhouette_score

    clusters = int(labels_E.max()) + 1
    rows = np.sort(draw.permutation(len(labels_E))[:_MOST_ROWS])
    some = len(np.unique(labels_E[rows]))
    telling = 1 < some < len(rows)
    silhouette = float(silhouette_score(vectors_E_D[rows], labels_E[rows], metric="cosine")) if telling else float("nan")
    return Candidate(size, height, clusters, silhouette, _stability(vectors_E_D[rows], height, linkage, draw))


def _stability(vectors_E_D: Vectors, height: float, linkage: Linkage, draw: np.random.Generator) -> float:
    from sklearn.metrics import adjusted_rand_score

    whole_E = linkage_tree(vectors_E_D, linkage).cut(height)
    kept = round(0.8 * len(vectors_E_D))
    if whole_E.max() == 0:  # one cluster of all
        return float("nan")
    scores = []
    for _ in range(_SUBSAMPLES):
        rows = np.sort(draw.permutation(len(vectors_E_D))[:kept])
        scores.append(adjusted_rand_score(whole_E[rows], linkage_tree(vectors_E_D[rows], linkage).cut(height)))
    return float(np.mean(scores))


def _random_cosines(vectors_E_D: Vectors, draw: np.random.Generator) -> np.ndarray:
    left = draw.integers(0, len(vectors_E_D), _PAIRS)
    right = (left + draw.integers(1, len(vectors_E_D), _PAIRS)) % len(vectors_E_D)  # never a row with itself
    return np.concatenate(
        [
            np.einsum("pd,pd->p", vectors_E_D[a], vectors_E_D[b])
            for a, b in zip(np.array_split(left, 20), np.array_split(right, 20), strict=True)
        ]
    )


def table(calibration: Calibration) -> str:
    """Return the candidates as lines of text, the chosen height marked."""
    lines = ["  size  height  clusters  silhouette  stability"]
    for c in calibration.candidates:
        mark = "  <- chosen" if abs(c.height - calibration.height) < 1e-9 else ""
        lines.append(f"{c.cluster_size:6.1f} {c.height:7.4f} {c.clusters:9d} {c.silhouette:11.3f} {c.stability:10.3f}{mark}")
    cosines = ", ".join(f"{p}%: {cosine:.3f}" for p, cosine in calibration.random_pairs.items())
    return "\n".join([*lines, f"cosine of random pairs  {cosines}", f"height by {calibration.by}: {calibration.height:g}"])


def check_plot(path: Path) -> None:
    """Check before any work is done that a plot can be written to `path`.

    Raises:
        HiExpError: matplotlib is not installed, the suffix is none that it knows, or there is no such directory.
    """
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as error:
        raise HiExpError("plots need matplotlib; install hiexp-verl[plots]") from error
    known = FigureCanvasBase.get_supported_filetypes()
    if path.suffix.lower().removeprefix(".") not in known:
        raise HiExpError(f"--plot {path}: {path.suffix or 'no suffix'} is not a format for plots; end the name in .svg, .png or .pdf")
    if path.is_dir() or not path.parent.is_dir():
        raise HiExpError(f"--plot {path} is a directory, or its folder does not exist; give another path")


def plot(calibrations: dict[str, Calibration], path: Path) -> None:
    """Draw silhouette, stability and number of clusters over the height, one row per level; the suffix gives the format.

    Raises:
        HiExpError: see `check_plot`; there is nothing to draw; the disk is full, or does not let us write.
    """
    check_plot(path)
    if not calibrations:
        raise HiExpError("no level has enough entries for a height to be chosen, so there is nothing to plot; leave --plot out")
    from matplotlib.figure import Figure

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


_CLUSTERED: tuple[Level, ...] = ("e1", "e2")
MIN_ENTRIES = 3


@dataclass(frozen=True)
class Recalibrated:
    """The HEK with its new thresholds, and how the heights were chosen, by level."""

    hek: HEK
    heights: dict[str, Calibration]
    tool_fire_rate: float


def recalibrate(
    hek: HEK,
    encoder: Encoder,
    by: Criterion = "size",
    cluster_size: float = 4.0,
    linkage: Linkage = "ward",
    percentile: float = 95.0,
    min_fire_rate: float = 0.3,
    max_fire_rate: float = 0.5,
) -> Recalibrated:
    """Choose minimum scores from the queries and questions that the HEK remembers, and heights from its entries.

    A level of fewer than 3 entries keeps its height, and so does the other linkage. Entries stay as they are: the heights
    hold for the next build.

    Raises:
        HiExpError: the encoder is not the HEK's; see `calibrate_height`.
    """
    hek.check_encoder(encoder.identity)
    heights: dict[str, Calibration] = {}
    for level in _CLUSTERED:
        rows = [row for row, entry in enumerate(hek.entries) if entry.level == level]
        if len(rows) >= MIN_ENTRIES:
            entries = [hek.entries[row] for row in rows]
            shapes = len({main_shape(entry) for entry in entries})
            vectors_E_D = with_shape(hek.vectors_E_D[rows], entries)
            heights[threshold_of(level, linkage)] = calibrate_height(vectors_E_D, by, cluster_size, linkage, known_groups=shapes)
    scores, fire_rate = thresholds(hek, hek.sources, encoder, percentile, min_fire_rate, max_fire_rate)
    chosen = {**hek.header.thresholds, **scores, **{name: calibration.height for name, calibration in heights.items()}}
    header = replace(
        hek.header,
        thresholds=chosen,
        parents=(hek.content_hash(),),
        reason=f"calibrated by {by} with {linkage} linkage, percentile {percentile:g}",
        content_hash="",
    )
    return Recalibrated(replace(hek, header=header), heights, fire_rate)
