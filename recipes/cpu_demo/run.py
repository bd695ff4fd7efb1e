"""The whole loop on a CPU: warm start, rollouts, HEK, what it is worth, GRPO and GSPO with experience, report.

The result of each finished stage is kept in outputs/demo/run.json; a second run reuses it.
"""

import argparse
import json
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hiexp_verl.errors import HiExpError
from hiexp_verl.io.manifest import MANIFEST, Manifest, read_manifest, timed
from hiexp_verl.report import write_report
from recipes.cpu_demo.facts import facts
from recipes.cpu_demo.stages import ARMS, Demo, DemoSpec, effect_line, plans_line
from recipes.cpu_demo.training import MIN_PEARSON, lowest, weights_in_sync
from recipes.cpu_demo.watch import MemoryWatch


def main() -> int:
    """Run the demo; 0 when it finished and the served weights were the trained ones."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what a stage has started is stopped with it
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/demo"), help="results and report (default outputs/demo)")
    distillers = "rules (default), qwen-0.5b or qwen-1.5b (fetched), or what `hiexp build` takes"
    parser.add_argument("--distiller", default=DemoSpec.distiller, help=distillers)
    parser.add_argument("--warm-start", type=int, default=DemoSpec.warm_start, help="transcripts of the warm start (default %(default)s)")
    parser.add_argument("--train", type=int, default=DemoSpec.train, help="questions rolled out, 8 of a kind (default %(default)s)")
    parser.add_argument("--k", type=int, default=DemoSpec.k, help="rollouts per question (default %(default)s)")
    parser.add_argument("--val", type=int, default=DemoSpec.val, help="questions about other countries to compare on (default %(default)s)")
    parser.add_argument("--steps", type=int, default=DemoSpec.steps, help="GRPO steps (default %(default)s)")
    parser.add_argument("--gspo-steps", type=int, default=DemoSpec.gspo_steps, help="GSPO steps (default %(default)s)")
    parser.add_argument("--seed", type=int, default=DemoSpec.seed)
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier run did")
    arguments = parser.parse_args()
    settings = {key: value for key, value in vars(arguments).items() if key != "fresh"}
    return exit_code("demo", lambda: run(DemoSpec(**settings), arguments.fresh))


def exit_code(name: str, recipe: Callable[[], int]) -> int:
    """Run a recipe; a fault is one line and 1, an interrupt 130."""
    try:
        return recipe()
    except HiExpError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the same command goes on after the last stage that was finished", file=sys.stderr)
        return 130


def run(spec: DemoSpec, fresh: bool = False) -> int:
    """Run every stage in order, then write summary.json."""
    out = spec.out
    settings = {key: str(value) for key, value in vars(spec).items() if key != "out"}
    manifest = prepare(out, settings, fresh)
    demo = Demo(spec)
    with MemoryWatch() as memory, timed(out, manifest):
        for name, what, stage in demo.stages():
            demo.results[name] = one_stage(out, name, what, stage, manifest)
        results, seconds = demo.results, manifest.outcome["seconds"]
        summary = {
            "seconds": seconds,
            "seconds_in_all": round(sum(seconds.values()), 1),
            "pearson_min": lowest([results["grpo"]["pearson_min"], results["gspo"]["pearson_min"]]),
            "valid_search_before": results["before"]["shares"]["valid_search"],
            "valid_search_after": results["rollouts"]["validation"]["valid_search"],
            "episodes": {
                "validation, as it comes": results["before"]["shares"],
                "validation, warm-started": results["rollouts"]["validation"],
                "rollouts of training": results["rollouts"]["shares"],
                "last GRPO step": results["grpo"]["shares"],
                "last GSPO step": results["gspo"]["shares"],
                **{f"validation, GRPO, {arm}": shares for arm, shares in results["validation"].items()},
            },
            "effect": {name: {arm: line["concise"] for arm, line in lines.items()} for name, lines in results["effect"].items()},
            **{name: results["build"][name] for name in ("plans", "right_plans", "kinds")},
            "reward_first": results["grpo"]["rewards"][0],
            "reward_last": results["grpo"]["rewards"][-1],
            "entries": results["build"]["levels"],
            "e1_fire_rate": results["grpo"]["e1_fire_rate"],
        }
    report = out / "report.html"
    peak = memory.peak_gib(manifest.outcome.get("peak_memory_gib", 0.0))
    summary |= {"peak_memory_gib": peak, "report": str(report), "facts": facts(spec)}
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    manifest.results |= {"summary": ["summary.json"], "report": ["report.html"]}
    in_short = effect_lines(results["effect"], summary)
    manifest.finish(out, facts=summary["facts"], in_short=in_short, peak_memory_gib=peak)
    write_report([out], report, "HiExp on a CPU: the demo")
    print_summary(summary)
    print("\n== " + "\n   ".join(in_short))
    return verdict(summary["pearson_min"])


def verdict(pearson_min: float) -> int:
    """Return the exit code: 1, with a message, when vLLM did not serve the trained weights in some step."""
    if weights_in_sync(pearson_min):
        return 0
    print(f"demo: FAILED: Pearson {pearson_min:.4f} is not above {MIN_PEARSON}: vLLM does not serve the trained weights", file=sys.stderr)
    return 1


def prepare(out: Path, settings: dict[str, str], fresh: bool) -> Manifest:
    """Return the manifest with the results of an earlier run; start over when asked to, or when that run had other settings."""
    if (out / MANIFEST).is_file():
        manifest = read_manifest(out)
        if manifest.kind == "recipe" and manifest.spec == settings and not fresh:
            return manifest
        print(f"starting over in {out} ({'--fresh' if fresh else 'the settings differ from those of the last run'})")
        shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    return Manifest(kind="recipe", spec=settings, outcome={"seconds": {}, "stages": {}})


def one_stage(out: Path, name: str, what: str, stage: Callable[[Path], dict[str, Any]], manifest: Manifest) -> dict[str, Any]:
    """Run a stage, or take its result from an earlier run; print what it did and how long it took."""
    print(f"\n== {name}: {what}", flush=True)
    seconds, results = manifest.outcome["seconds"], manifest.outcome["stages"]
    if name in results:
        print(f"   done earlier in {seconds[name]:.0f} s")
        return results[name]
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)  # a stage that was interrupted starts again
    folder.mkdir(parents=True)
    started = time.monotonic()
    result = stage(folder)
    seconds[name], results[name] = round(time.monotonic() - started, 1), result
    manifest.write(out)
    print(f"   {seconds[name]:.0f} s", flush=True)
    return result


def print_summary(summary: dict[str, Any]) -> None:
    """Print what a person wants to know first."""
    print("\n== summary")
    print("   seconds: " + ", ".join(f"{name} {seconds:.0f}" for name, seconds in summary["seconds"].items()))
    print(f"   in all {summary['seconds_in_all']:.0f} s; peak memory {summary['peak_memory_gib']:.1f} GiB")
    print(f"   {'episodes':28} valid search  answered  correct")
    for name, shares in summary["episodes"].items():
        print(f"   {name:28} {shares['valid_search']:12.2f} {shares['answered']:9.2f} {shares['correct']:8.2f}")
    print(f"   GRPO reward {summary['reward_first']:.3f} -> {summary['reward_last']:.3f}; E1 fire rate {summary['e1_fire_rate']:.2f}")
    print(f"   Pearson of rollout and actor probabilities, lowest of all steps: {summary['pearson_min']:.4f}")
    print(f"   entries: {summary['entries']}")
    print(f"   report: {summary['report']}")


def effect_lines(table: dict[str, Any], summary: dict[str, Any]) -> list[str]:
    """Return what the policy's own experience is worth on questions about countries that it has never seen."""
    episodes = next(iter(table.values()))["none"]["episodes"]
    asked = f"{episodes} questions in everyday words about countries that no rollout named"
    heading = f"what experience is worth: {asked}, share right [95%] (difference to no experience)"
    return [heading, *(effect_line(arm, table) for arm in ARMS), plans_line(summary)]


if __name__ == "__main__":
    sys.exit(main())
