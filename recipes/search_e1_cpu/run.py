"""Search-E1 on a CPU: steps of GRPO without a bank, and after every second one a round of self-distillation from its own rollouts.

The result of each finished stage is kept in outputs/search_e1/run.json; a second run reuses it.
"""

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

from hiexp_verl.io.manifest import timed
from hiexp_verl.report import write_report
from recipes.cpu_demo.run import exit_code, one_stage, prepare
from recipes.cpu_demo.stages import Demo, DemoSpec
from recipes.cpu_demo.training import read_metrics, train

HERE = Path(__file__).parent
ROUND = "hiexp/distil/"
SHOWN = ("pairs", "students", "updates", "stopped", "kl", "held_out_kl_before", "held_out_kl", "drift")


def main() -> int:
    """Run the stages; 0 when a round has learnt."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/search_e1"), help="results and report (default outputs/search_e1)")
    parser.add_argument("--steps", type=int, default=4, help="training steps (default 4)")
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier run did")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of verl, such as data.train_batch_size=4")
    a = parser.parse_args()
    return exit_code("search_e1", lambda: run(a.out, a.steps, a.overrides, a.fresh))


def run(out: Path, steps: int, overrides: list[str], fresh: bool) -> int:
    """Run every stage in order, then say what the rounds did."""
    manifest = prepare(out, {"steps": str(steps), "overrides": " ".join(overrides)}, fresh)
    demo = Demo(DemoSpec(out))

    def training(folder: Path) -> dict[str, Any]:
        found = train(HERE, "grpo", [*given(demo, folder, steps), *overrides], folder, steps)
        return {**found, "rounds": rounds_in(read_metrics(folder / "metrics.jsonl"))}

    stages = [
        *(stage for stage in demo.stages() if stage[0] in ("assets", "warm_start")),
        ("training", f"{steps} steps of GRPO, a round of self-distillation after every second one", training),
    ]
    with timed(out, manifest):
        for name, what, stage in stages:
            demo.results[name] = one_stage(out, name, what, stage, manifest)
    manifest.finish(out)
    write_report([out], out / "report.html", "Search-E1 on a CPU")
    return print_rounds(demo.results["training"]["rounds"], out / "report.html")


def given(demo: Demo, folder: Path, steps: int) -> list[str]:
    """Return what the configuration leaves open, from the stages before."""
    results, files = demo.results, demo.out / "assets"
    return [
        f"hiexp.search.corpus={results['assets']['corpus']}",
        f"hiexp.dump_dir={folder / 'episodes'}",
        f"data.train_files={files / 'rollouts.jsonl'}",
        f"data.val_files={files / 'val.jsonl'}",
        f"actor_rollout_ref.model.path={results['warm_start']['model']}",
        f"trainer.total_training_steps={steps}",
        f"trainer.save_freq={steps}",
        f"trainer.default_local_dir={folder / 'checkpoints'}",
    ]


def rounds_in(steps: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Return the figures of each round, with its step."""
    return [
        {"step": row["step"], **{name.removeprefix(ROUND): value for name, value in row.items() if name.startswith(ROUND)}}
        for row in steps
        if any(name.startswith(ROUND) for name in row)
    ]


def print_rounds(rounds: list[dict[str, float]], report: Path) -> int:
    """Print what the rounds did; return 0 when one has learnt."""
    print("\n== what the rounds did")
    for found in rounds:
        print(f"   step {found['step']}: " + ", ".join(f"{name} {found[name]:.4g}" for name in SHOWN if name in found))
    print(f"   report: {report}")
    return 0 if any(found.get("updates") for found in rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
