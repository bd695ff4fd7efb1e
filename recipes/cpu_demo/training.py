"""Run verl's trainer as a user would, and follow its metrics."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np

from hiexp_verl.errors import HiExpError
from hiexp_verl.plugin.launch import trainer_command

PEARSON = "training/rollout_actor_probs_pearson_corr"
REWARD = "critic/score/mean"
SHARES = {"valid_search": "hiexp/valid_search_rate", "answered": "hiexp/format", "correct": "hiexp/acc"}
MIN_PEARSON = 0.99  # in sync it was 0.998 and more in every step; three steps behind, 0.96
SHOWN = (REWARD, *SHARES.values(), "hiexp/searches", "hiexp/e1_fire_rate", PEARSON)


def train(recipe: Path, algorithm: str, overrides: list[str], folder: Path, steps: int) -> dict[str, Any]:
    """Train with recipe/<algorithm>.yaml; print a line per step; return rewards, rates and the lowest Pearson correlation.

    Raises:
        HiExpError: the trainer failed, or left fewer steps than asked for.
    """
    metrics, log = folder / "metrics.jsonl", folder / "log.txt"
    flags = ["--config-dir", str(recipe), "--config-name", algorithm, f"hydra.run.dir={folder / 'hydra'}"]
    command, environment = trainer_command([*flags, *overrides], cpu=True)
    environment["VERL_FILE_LOGGER_PATH"] = str(metrics)
    with log.open("w", encoding="utf-8") as file:
        trainer = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
        seen = 0
        try:
            while trainer.poll() is None:
                time.sleep(1)
                seen = _print_new(metrics, seen)
        except BaseException:
            trainer.terminate()  # Ray ends its workers when the driver goes
            trainer.wait()
            raise
    _print_new(metrics, seen)
    rows = read_metrics(metrics)
    if trainer.returncode or len(rows) < steps:
        raise HiExpError(f"verl ended with code {trainer.returncode} after {len(rows)} of {steps} steps; the end of {log} says why")
    return {
        "rewards": [row[REWARD] for row in rows],
        "pearson_min": lowest([row[PEARSON] for row in rows]),
        "shares": {name: rows[-1][key] for name, key in SHARES.items()},
        "e1_fire_rate": sum(row["hiexp/e1_fire_rate"] for row in rows) / len(rows),
        "e2_e3_hit_rate": sum(row["hiexp/e2_e3_hit_rate"] for row in rows) / len(rows),
        "metrics": str(metrics),
        "episodes": str(folder / "episodes"),
    }


def lowest(values: list[float]) -> float:
    """Return the smallest, or NaN if there is one among them (min() would pass over it)."""
    return float(np.min(values))


def weights_in_sync(pearson: float) -> bool:
    """Whether this correlation of rollout and actor probabilities says that vLLM serves the weights being trained."""
    return pearson > MIN_PEARSON  # false for NaN, too


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Return the metrics of every training step, in order."""
    if not path.is_file():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    return [{"step": row["step"], **row["data"]} for row in rows if PEARSON in row["data"]]


def _print_new(path: Path, seen: int) -> int:
    rows = read_metrics(path)
    for row in rows[seen:]:
        print(f"   step {row['step']}: " + ", ".join(f"{name.rsplit('/', 1)[-1]} {row[name]:.3f}" for name in SHOWN), flush=True)
    return len(rows)
