"""Does experience help while a policy is trained? GRPO and GSPO with and without it, several seeds, equal steps and episodes.

    make assets && python -m benchmarks.effect_rl --seeds 0 1 2 --steps 10

SmolLM2-135M is warm-started on four families of factbook questions; the others (anthems, neighbours, internet codes: half of the
training questions) it has to discover. A HEK is built by rules from its rollouts of the training questions. Then every algorithm
is run with `hiexp.control=none` and `full`: the same start, questions, order, seeds and number of episodes. Validation is on
countries that occur in no training question, during training as each run plays, and at its end with and without experience
(`hiexp eval`). Every run is kept where it is done; an interrupted benchmark goes on. About 15 minutes a run on 2 cores.
Writes results/effect_rl.{json,md}; `hiexp report OUT` draws the curves.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import _machine
from benchmarks._results import RESULTS, table
from hiexp_verl.assets import fetch
from hiexp_verl.factbook.sets import write_factbook
from hiexp_verl.jsonl import atomic_writer, read_questions, write_jsonl

RECIPE = Path(__file__).parents[1] / "recipes" / "cpu_demo"
sys.path.insert(0, str(RECIPE))  # the training is that of the demo

from training import REWARD, train  # noqa: E402

KNOWN = ("capital > highest point", "capital > independence", "capital > currency", "highest point > capital")  # of the warm start
CONTROLS = ("none", "full")
VALIDATION = "val-core/hiexp/acc/mean@1"
CURVES = {
    "reward": REWARD,
    "reward's variance": "hiexp/reward_variance",
    "advantage's variance": "hiexp/advantage_variance",
    "gradient norm": "actor/grad_norm",
    "validation": VALIDATION,
}


def main() -> None:
    """Run what is not done yet, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=10, help="(default 10)")
    parser.add_argument("--algorithms", nargs="+", default=["grpo", "gspo"], choices=("grpo", "gspo"))
    parser.add_argument("--warm-start", type=int, default=64, help="transcripts (default 64: nearly every group is mixed)")
    parser.add_argument(
        "--questions", type=int, default=40, help="for rollouts and training (default 40), half of families not warm-started"
    )
    parser.add_argument("--validation", type=int, default=48, help="questions about other countries (default 48)")
    parser.add_argument("--out", type=Path, default=Path("outputs/effect_rl"))
    arguments = parser.parse_args()
    machine, out = _machine.facts(), arguments.out.resolve()
    data = write_data(out / "data", arguments)
    policy = warm_start(out / "warm_start", data, arguments.warm_start)
    hek = build(out, data, policy)
    runs = []
    for seed in arguments.seeds:
        for algorithm in arguments.algorithms:
            for control in CONTROLS:
                folder = out / f"{algorithm}-{control}-{seed}"
                result = one_run(folder, algorithm, control, seed, data, policy, hek, arguments.steps)
                runs.append({"algorithm": algorithm, "control": control, "seed": seed, **result})
                write(machine, vars(arguments), runs)


def write_data(folder: Path, arguments: argparse.Namespace) -> Path:
    """Write warm.jsonl, train.jsonl (half of it of families not warm-started), val.jsonl and the corpus."""
    if not (folder / "val.jsonl").is_file():
        write_factbook(fetch("factbook"), folder)
        questions = read_questions(folder / "train.jsonl")
        known = [q for q in questions if q.meta["family"] in KNOWN]
        other = [q for q in questions if q.meta["family"] not in KNOWN]
        half = arguments.questions // 2
        learnt = [q for pair in zip(known[arguments.warm_start :][:half], other[:half], strict=True) for q in pair]
        write_jsonl(folder / "warm.jsonl", known[: arguments.warm_start])
        write_jsonl(folder / "learn.jsonl", learnt)
        write_jsonl(folder / "check.jsonl", read_questions(folder / "val.jsonl")[: arguments.validation])
    return folder


def warm_start(folder: Path, data: Path, transcripts: int) -> Path:
    """Fine-tune the model on transcripts of the known families; return the policy."""
    policy = folder / "model"
    if not policy.is_dir():
        run(str(RECIPE / "warm_start.py"), "--model", str(fetch("smollm2-135m")), "--questions", str(data / "warm.jsonl"),
            "--corpus", str(data / "corpus.jsonl"), "--limit", str(transcripts), "--max-words", "32", "--out", str(policy))  # fmt: skip
    return policy


def build(out: Path, data: Path, policy: Path) -> Path:
    """Roll the training questions out and distil a HEK by rules."""
    hek, rollouts = out / "hek", out / "rollouts"
    if not (hek / "CURRENT").is_file():
        played = ["--questions", str(data / "learn.jsonl"), "--corpus", str(data / "corpus.jsonl"), "--model", str(policy)]
        run("-m", "hiexp_verl.cli", "rollout", *played, *EPISODES, "--k", "6", "--resume", "--out", str(rollouts))
        made_of = ["--trajectories", str(rollouts / "trajectories.jsonl"), "--encoder", str(fetch("minilm"))]
        run("-m", "hiexp_verl.cli", "build", *made_of, "--out", str(hek))
    return hek


EPISODES = ("--max-tokens", "96", "--max-searches", "3", "--top-k", "2", "--max-words", "32")


def one_run(folder: Path, algorithm: str, control: str, seed: int, data: Path, policy: Path, hek: Path, steps: int) -> dict[str, Any]:
    """Train once and evaluate what came out; return the curves and the evaluation's table."""
    done = folder / "done.json"
    if not done.is_file():
        print(f"\n== {folder.name}: {steps} steps", flush=True)
        shutil.rmtree(folder, ignore_errors=True)  # half a run is none
        folder.mkdir(parents=True)
        overrides = [
            f"hiexp.control={control}",
            f"hiexp.hek={hek}",
            f"hiexp.search.corpus={data / 'corpus.jsonl'}",
            f"hiexp.dump_dir={folder / 'episodes'}",
            f"hiexp.seed={seed}",
            f"data.train_files={data / 'learn.jsonl'}",
            f"data.val_files={data / 'check.jsonl'}",
            f"data.seed={seed}",
            "data.train_batch_size=4",
            f"actor_rollout_ref.model.path={policy}",
            "actor_rollout_ref.actor.ppo_mini_batch_size=4",
            "actor_rollout_ref.rollout.n=4",
            f"actor_rollout_ref.rollout.seed={seed}",
            f"trainer.total_training_steps={steps}",
            f"trainer.save_freq={steps}",
            f"trainer.test_freq={max(1, steps // 2)}",
            "trainer.val_before_train=true",
            f"trainer.default_local_dir={folder / 'checkpoints'}",
        ]
        train(RECIPE, algorithm, overrides, folder, steps)
        played = ["--questions", str(data / "check.jsonl"), "--corpus", str(data / "corpus.jsonl"), "--hek", str(hek), *EPISODES]
        run(
            "-m",
            "hiexp_verl.cli",
            "eval",
            *played,
            "--model",
            str(folder / "checkpoints"),
            "--arms",
            "base,hek",
            "--out",
            str(folder / "eval"),
        )
        result = {"curves": curves(folder / "metrics.jsonl"), "arms": json.loads((folder / "eval" / "table.json").read_text())["arms"]}
        shutil.rmtree(folder / "checkpoints")  # half a GiB each
        with atomic_writer(done) as file:
            file.write(json.dumps(result) + "\n")
    return json.loads(done.read_text(encoding="utf-8"))


def curves(metrics: Path) -> dict[str, list[tuple[int, float]]]:
    """Return (step, value) of each curve that verl logged."""
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    return {name: [(row["step"], row["data"][key]) for row in rows if key in row["data"]] for name, key in CURVES.items()}


def run(*command: str) -> None:
    """Run Python with these arguments; a failure ends the benchmark."""
    subprocess.run([sys.executable, *command], check=True, env={**os.environ, "OMP_NUM_THREADS": str(os.cpu_count())})


def write(machine: dict[str, Any], settings: dict[str, Any], runs: Sequence[dict[str, Any]]) -> None:
    """Write the raw curves and one table: means over seeds, with the range."""
    settings = {key: value for key, value in settings.items() if key != "out"}
    with atomic_writer(RESULTS / "effect_rl.json") as file:
        file.write(json.dumps({"machine": machine, "settings": settings, "runs": list(runs)}, indent=1) + "\n")
    lines = ["# Experience while a policy is trained", "", *_machine.as_lines(machine), ""]
    heads = ["run", "seeds", "reward, first 3 steps", "reward, last 3", "reward's variance", "gradient norm", "validation before", "after"]
    rows = []
    for algorithm, control in dict.fromkeys((r["algorithm"], r["control"]) for r in runs):
        of = [r for r in runs if (r["algorithm"], r["control"]) == (algorithm, control)]
        cells = [f"{algorithm} {control}", str(len(of))]
        cells += [_spread([_mean(r["curves"]["reward"][:3]) for r in of]), _spread([_mean(r["curves"]["reward"][-3:]) for r in of])]
        cells += [_spread([_mean(r["curves"][name]) for r in of]) for name in ("reward's variance", "gradient norm")]
        cells += [_spread([r["curves"]["validation"][place][1] for r in of]) for place in (0, -1)]
        cells += [_spread([line["cem"] for r in of for line in r["arms"] if line["arm"] == arm]) for arm in ("base", "hek")]
        rows.append(cells)
    lines += table([*heads, "base, after", "with HEK, after"], rows, numbers=set())
    lines += [
        "",
        "Means over seeds, and their range. Validation as the run plays (with experience where it has it); `base` and `with HEK`:",
    ]
    lines += [f"CEM of greedy episodes on {settings['validation']} questions about countries that occur in no training question."]
    with atomic_writer(RESULTS / "effect_rl.md") as file:
        file.write("\n".join(lines) + "\n")


def _mean(points: Sequence[Sequence[float]]) -> float:
    return statistics.fmean(value for _, value in points)


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.3f} [{min(values):.3f}, {max(values):.3f}]"


if __name__ == "__main__":
    main()
