"""Ward linkage of N x 384 vectors: ours against scikit-learn's dense one, in one run; each measurement in a fresh process.

    python -m benchmarks.clustering [--size smoke|bench|long]

Seconds, peak memory, and the adjusted Rand index of the two clusterings, which must be 1: both are exact.
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _machine
from benchmarks._results import Claim, Panel, Result, command_line, figure, folder_of, publish, table

OURS, THEIRS = "ours", "scikit-learn"
DIMENSIONS, PER_CLOUD = 384, 8


@dataclass(frozen=True)
class Size:
    both: tuple[int, ...]  # numbers of vectors
    ours_only: tuple[int, ...] = ()


_BOTH = (1_000, 2_000, 5_000, 10_000, 20_000)
SIZES = {"smoke": Size((200,), (400,)), "bench": Size(_BOTH, (50_000,)), "long": Size(_BOTH, (50_000, 100_000))}


def main() -> None:
    """Run all sizes, write the results."""
    parser = command_line(__doc__)
    parser.add_argument("--measure", nargs=3, metavar=("WHO", "ROWS", "LABELS"), help="one measurement, for this program itself")
    arguments = parser.parse_args()
    if arguments.measure:
        who, rows, labels = arguments.measure
        measure(who, int(rows), Path(labels))
        return
    machine, size, folder = _machine.facts(), SIZES[arguments.size], folder_of(arguments)
    folder.mkdir(parents=True, exist_ok=True)
    measured = []
    for rows in (*size.both, *size.ours_only):
        measured.append(compare(rows, rows in size.both, folder))
        print(json.dumps(measured[-1]), flush=True)
    publish("clustering", machine, result_of(measured), folder)


def vectors(rows: int) -> np.ndarray:
    """Return noisy clouds of about 8 unit vectors each, as the titles of a HEK are: many kinds of question, some of each."""
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(rows // PER_CLOUD, DIMENSIONS))
    noisy = centres[draw.integers(0, len(centres), rows)] + 0.7 * draw.normal(size=(rows, DIMENSIONS))
    return (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32)


def measure(who: str, rows: int, out: Path) -> None:
    """Cluster once; print seconds and memory as JSON, leave the labels in a file."""
    cluster = ours if who == OURS else theirs
    cluster(vectors(2 * PER_CLOUD))  # whatever is imported at the first use
    data = vectors(rows)
    before, started = _machine.peak_gib(), time.perf_counter()
    labels = cluster(data)
    seconds = time.perf_counter() - started
    np.save(out, labels)
    print(json.dumps({"seconds": seconds, "peak_gib": _machine.peak_gib(), "peak_gib_before": before}))


def ours(vectors_N_D: np.ndarray) -> np.ndarray:
    from hiexp_verl.distil.cluster import height_for, ward_tree

    tree = ward_tree(vectors_N_D)
    return tree.cut(height_for(tree, PER_CLOUD))


def theirs(vectors_N_D: np.ndarray) -> np.ndarray:
    from sklearn.cluster import AgglomerativeClustering

    return AgglomerativeClustering(n_clusters=round(len(vectors_N_D) / PER_CLOUD), linkage="ward").fit_predict(vectors_N_D)


def compare(rows: int, both: bool, folder: Path) -> dict[str, Any]:
    """Return what each took of so many vectors."""
    found = {who: _in_a_process(who, rows, folder) for who in ((OURS, THEIRS) if both else (OURS,))}
    row: dict[str, Any] = {"rows": rows, **{who: numbers for who, (numbers, _) in found.items()}}
    if both:
        from sklearn.metrics import adjusted_rand_score

        row["rand"] = float(adjusted_rand_score(found[OURS][1], found[THEIRS][1]))
    return row


def _in_a_process(who: str, rows: int, folder: Path) -> tuple[dict[str, float], np.ndarray]:
    labels = folder / f".labels-{who}-{rows}.npy"
    command = [sys.executable, "-m", "benchmarks.clustering", "--measure", who, str(rows), str(labels)]
    try:
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        return json.loads(printed.splitlines()[-1]), np.load(labels)
    finally:
        labels.unlink(missing_ok=True)


def result_of(measured: list[dict[str, Any]]) -> Result:
    """Return claims at the largest size that both did, and growth."""
    largest = [row for row in measured if THEIRS in row][-1]
    what = f"Ward's tree of {largest['rows']:,} x {DIMENSIONS}"
    instead = "scikit-learn's AgglomerativeClustering"
    claims = [
        Claim(f"{what}{suffix}", unit, "less", largest[OURS][key], instead, largest[THEIRS][key])
        for key, unit, suffix in (("seconds", "s", ""), ("peak_gib", "GiB", ", memory"))
    ]
    panels = [
        Panel("vectors", y, {who: [(row["rows"], row[who][key]) for row in measured if who in row] for who in (OURS, THEIRS)})
        for key, y in (("seconds", "seconds"), ("peak_gib", "peak GiB"))
    ]
    rows = []
    for row in measured:
        mine = [f"{row['rows']:,}", figure(row[OURS]["seconds"]), figure(row[OURS]["peak_gib"])]
        other = ["-"] * 4
        if THEIRS in row:
            their = row[THEIRS]
            other = [figure(x) for x in (their["seconds"], their["peak_gib"], their["seconds"] / row[OURS]["seconds"])]
            other.append(f"{row['rand']:.4f}")
        rows.append([*mine, *other])
    head = ["vectors", "ours, s", "ours, GiB", "scikit-learn, s", "scikit-learn, GiB", "times faster", "adjusted Rand index"]
    setting = f"Noisy clouds of about {PER_CLOUD} unit vectors; the whole tree, cut to N / {PER_CLOUD} clusters."
    return Result("Ward linkage against scikit-learn's", claims, panels, {"measured": measured}, [setting, "", *table(head, rows)])


if __name__ == "__main__":
    main()
