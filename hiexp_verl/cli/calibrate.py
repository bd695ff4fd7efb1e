"""`hiexp calibrate`."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hiexp_verl.cli.common import add_verb, print_result
from hiexp_verl.errors import HiExpError


def add_calibrate(verbs: Any) -> None:
    """Add the verb."""
    epilog = (
        "criteria:  size        clusters of about --cluster-size entries (default)\n"
        "           silhouette  the height at which entries are closest to their own cluster\n"
        "           stability   the height at which four fifths of the entries fall into the same clusters\n"
        "           percentile  the height of a pair that is closer than 99 in 100 random pairs\n\n"
        "With a HEK, minimum scores and heights are stored in a new version, beside the encoder they hold for.\n"
        "With --vectors, the heights are only shown.\n\n"
        "example: hiexp calibrate hek --by stability --plot calibration.svg"
    )
    parser = add_verb(verbs, "calibrate", run_calibrate, "Choose the thresholds of a HEK from its own data.", epilog)
    parser.add_argument("hek", type=Path, nargs="?", metavar="HEK")
    parser.add_argument("--vectors", type=Path, metavar="FILE.npy", help="float32 matrix of unit vectors, instead of a HEK")
    parser.add_argument("--by", default="size", choices=("size", "silhouette", "stability", "percentile"))
    parser.add_argument("--cluster-size", type=float, default=4.0, help="for --by size (default 4)")
    parser.add_argument("--linkage", default="ward", choices=("ward", "average"))
    parser.add_argument(
        "--percentile", type=float, default=95.0, help="of the cosines with unrelated titles: a match lies above (default 95)"
    )
    parser.add_argument("--encoder", help="where the encoder of the HEK lies, if it has moved")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw scores over heights (.svg, .png, .pdf)")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run_calibrate(arguments: argparse.Namespace) -> int:
    """Calibrate a HEK and save the new version, or look at vectors."""
    from hiexp_verl.build.calibration import calibrate_height, check_plot, plot, table
    from hiexp_verl.build.recalibrate import recalibrate
    from hiexp_verl.build.unit_vectors import read_unit_vectors
    from hiexp_verl.hek.locate import open_encoder
    from hiexp_verl.hek.store import HEK

    if (arguments.hek is None) == (arguments.vectors is None):
        raise HiExpError("give either a HEK or --vectors FILE.npy")
    if arguments.plot is not None:
        check_plot(arguments.plot)
    if arguments.vectors is not None:
        vectors_E_D = read_unit_vectors(arguments.vectors)
        calibrations = {"vectors": calibrate_height(vectors_E_D, arguments.by, arguments.cluster_size, arguments.linkage)}
        if arguments.plot is not None:
            plot(calibrations, arguments.plot)
        value: dict[str, Any] = {"height": calibrations["vectors"].height}
        text = ""
    else:
        hek = HEK.load(arguments.hek)
        encoder = open_encoder(hek, arguments.hek, arguments.encoder)
        done = recalibrate(hek, encoder, arguments.by, arguments.cluster_size, arguments.linkage, arguments.percentile)
        calibrations = done.heights
        if arguments.plot is not None:  # before anything is saved: it may fail
            plot(calibrations, arguments.plot)
        version = done.hek.save(arguments.hek)
        thresholds = done.hek.header.thresholds
        value = {
            "thresholds": thresholds,
            "encoder": hek.header.encoder.name,
            "step_fire_rate": done.step_fire_rate,
            "version": str(version),
        }
        stored = "\n".join(f"{name:>22} {number:g}" for name, number in sorted(thresholds.items()))
        text = f"{stored}\n{done.step_fire_rate:.0%} of its own searches would get an E1 of another question\nsaved as {version}"
    tables = [f"{name}\n{table(calibration)}\n" for name, calibration in calibrations.items()]
    value["levels"] = {name: asdict(calibration) for name, calibration in calibrations.items()}
    print_result(arguments.json, value, "\n".join([*tables, text]).rstrip())
    return 0
