"""Choose the thresholds of a HEK anew, from what it holds; the result is a new version."""

from dataclasses import dataclass, replace

from hiexp_verl.build.calibration import Calibration, Criterion, calibrate_height
from hiexp_verl.build.cluster import Linkage, threshold_of
from hiexp_verl.build.summarise import main_shape, with_shape
from hiexp_verl.build.thresholds import thresholds
from hiexp_verl.encoder import Encoder
from hiexp_verl.hek.store import HEK
from hiexp_verl.types import Level

_CLUSTERED: tuple[Level, ...] = ("e1", "e2")
MIN_ENTRIES = 3


@dataclass(frozen=True)
class Recalibrated:
    """The HEK with its new thresholds, and how the heights were chosen, by level."""

    hek: HEK
    heights: dict[str, Calibration]
    step_fire_rate: float


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
