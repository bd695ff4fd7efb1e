"""Ward linkage of N x 384 vectors: ours against scikit-learn's dense one, in one run; each measurement in a fresh process.

    python -m benchmarks.clustering

writes benchmarks/results/clustering.{json,md,svg}: seconds, peak memory, adjusted Rand index, ratio, growth.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._machine import as_lines, facts

RESULTS = Path(__file__).parent / "results"
BOTH, OURS_ONLY = (1_000, 2_000, 5_000, 10_000, 20_000), (50_000, 100_000)
DIMENSIONS, PER_CLOUD = 384, 8


def vectors(rows: int) -> np.ndarray:
    """Return noisy clouds of about 8 unit vectors each, as the titles of a bank are: many kinds of question, some of each."""
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(rows // PER_CLOUD, DIMENSIONS))
    noisy = centres[draw.integers(0, len(centres), rows)] + 0.7 * draw.normal(size=(rows, DIMENSIONS))
    return (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32)


def measure(who: str, rows: int, out: Path) -> None:
    """Cluster once; print seconds and memory as JSON, leave the labels in a file."""
    data = vectors(rows)
    if who == "ours":
        from hiexp_verl.build.cluster import height_for
        from hiexp_verl.build.ward import ward_tree

        before, started = _peak_gib(), time.perf_counter()
        tree = ward_tree(data)
        labels = tree.cut(height_for(tree, PER_CLOUD))
    else:
        from sklearn.cluster import AgglomerativeClustering

        before, started = _peak_gib(), time.perf_counter()
        labels = AgglomerativeClustering(n_clusters=round(rows / PER_CLOUD), linkage="ward").fit_predict(data)
    seconds = time.perf_counter() - started
    np.save(out, labels)
    print(json.dumps({"who": who, "rows": rows, "seconds": seconds, "peak_gib": _peak_gib(), "peak_gib_before": before}))


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Run all sizes, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", nargs=3, metavar=("WHO", "ROWS", "OUT"), help=argparse.SUPPRESS)
    parser.add_argument("--most", type=int, default=100_000, help="leave out larger sizes (default 100000)")
    arguments = parser.parse_args()
    if arguments.measure:
        who, rows, out = arguments.measure
        measure(who, int(rows), Path(out))
        return
    machine = facts()
    RESULTS.mkdir(exist_ok=True)
    table: list[dict[str, Any]] = []
    for rows in [n for n in (*BOTH, *OURS_ONLY) if n <= arguments.most]:
        found = {who: _in_a_process(who, rows) for who in (("ours", "scikit-learn") if rows in BOTH else ("ours",))}
        row: dict[str, Any] = {"rows": rows, "seconds": found["ours"][0]["seconds"], "peak_gib": found["ours"][0]["peak_gib"]}
        if "scikit-learn" in found:
            from sklearn.metrics import adjusted_rand_score

            theirs = found["scikit-learn"][0]
            row |= {"theirs_seconds": theirs["seconds"], "theirs_peak_gib": theirs["peak_gib"]}
            row |= {"ratio": theirs["seconds"] / row["seconds"], "rand": adjusted_rand_score(found["ours"][1], found["scikit-learn"][1])}
        table.append(row)
        print(json.dumps(row), flush=True)
    (RESULTS / "clustering.json").write_text(json.dumps({"machine": machine, "rows": table}, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "clustering.md").write_text(_markdown(machine, table), encoding="utf-8")
    _plot(table, RESULTS / "clustering.svg")


def _in_a_process(who: str, rows: int) -> tuple[dict[str, Any], np.ndarray]:
    labels = RESULTS / f".labels-{who}-{rows}.npy"
    command = [sys.executable, "-m", "benchmarks.clustering", "--measure", who, str(rows), str(labels)]
    try:
        printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=RESULTS.parents[1]).stdout
        return json.loads(printed.splitlines()[-1]), np.load(labels)
    finally:
        labels.unlink(missing_ok=True)


def _markdown(machine: dict[str, Any], table: list[dict[str, Any]]) -> str:
    lines = ["# Ward linkage against scikit-learn's", "", *as_lines(machine), ""]
    lines += [
        f"Noisy clouds of about {PER_CLOUD} unit vectors of {DIMENSIONS} dimensions; the whole tree, cut to N / {PER_CLOUD} clusters.",
        "",
    ]
    lines += ["| vectors | ours s | ours GiB | scikit-learn s | scikit-learn GiB | times faster | adjusted Rand index |"]
    lines += ["| ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for r in table:
        theirs = "- | - | - | -"
        if "ratio" in r:
            theirs = f"{r['theirs_seconds']:.1f} | {r['theirs_peak_gib']:.2f} | {r['ratio']:.1f} | {r['rand']:.4f}"
        lines.append(f"| {r['rows']:,} | {r['seconds']:.2f} | {r['peak_gib']:.2f} | {theirs} |")
    return "\n".join([*lines, "", "![growth](clustering.svg)", ""])


def _plot(table: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axis, ours, theirs, unit in zip(
        figure.subplots(1, 2), ("seconds", "peak_gib"), ("theirs_seconds", "theirs_peak_gib"), ("seconds", "peak GiB"), strict=True
    ):
        axis.loglog([r["rows"] for r in table], [r[ours] for r in table], "o-", label="ours")
        both = [r for r in table if theirs in r]
        axis.loglog([r["rows"] for r in both], [r[theirs] for r in both], "s--", label="scikit-learn")
        axis.set(xlabel="vectors", ylabel=unit)
        axis.grid(visible=True, which="both", alpha=0.3)
        axis.legend()
    figure.savefig(path)


if __name__ == "__main__":
    main()
