"""Does experience help while a policy is trained on mathematics? GRPO with and without it on two generated families, several seeds.

    make assets && python -m benchmarks.maths_rl --seeds 0 1 2

SmolLM2-135M is warm-started on derivations of `chain_sum` and `word_problem`; half of them show a piece of advice, and where it asks for
checks, each step is checked by the inverse operation: so the policy learns that there is something to read. A HEK is built by rules from
its rollouts; training is on other problems, with `recipes/maths_cpu/grpo.yaml`. Every run has the same start, problems, order, seeds and
number of episodes, and is played at its end on test problems without experience, with it, and with random entries, greedily. Every run is
kept where it is done. Writes results/maths_rl.{json,md,svg} and the rows.
"""

import argparse
import json
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import _machine, effect_rl
from benchmarks._results import same_settings
from benchmarks.effect import hiexp
from hiexp_verl.config import PromptConfig
from hiexp_verl.domains.maths.domain import MATHS
from hiexp_verl.evaluate.tables import BASE
from hiexp_verl.guide.blocks import add_to_system, fit_block, rough_tokens
from hiexp_verl.hek.store import HEK
from hiexp_verl.io.datasets import read_questions, read_trajectories
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.models.tokenizer import PolicyTokenizer
from hiexp_verl.rollout.policy import identify
from hiexp_verl.rollout.rollout import SUMMARY, TRAJECTORIES
from hiexp_verl.types import Entry, Hit, Message, Question
from recipes.cpu_demo.training import train
from recipes.cpu_demo.warm_start import Training, warm_start
from recipes.demo_data.assets import fetch
from recipes.demo_data.maths.procedural import FAMILIES, problems_of

NAME = "maths_rl"  # of the results
RECIPE = Path(__file__).parents[1] / "recipes" / "maths_cpu"
ARMS = f"{BASE},full,random"
EPISODES = ("--domain", "maths", "--max-tokens", "192", "--max-model-len", "576", "--batch-size", "64")
BATCH = 8  # problems a step, four rollouts each
GUIDED = 0.5  # of the derivations of the warm start show a piece of advice
INVERSE = {"+": "-", "-": "+", "*": "/", "/": "*"}
CHECKS = "arithmetic_slip"  # the finding whose advice asks for checks


def main() -> None:
    """Run what is not done yet, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trained", nargs="+", default=["none", "full"], choices=tuple(effect_rl.TRAINED), help="(default none full)")
    parser.add_argument("--steps", type=int, default=12, help=f"of {4 * BATCH} episodes (default 12)")
    parser.add_argument("--lr", type=float, default=3e-5, help="(default 3e-5)")
    parser.add_argument("--warm-start", type=int, default=320, help="derivations (default 320)")
    parser.add_argument("--questions", type=int, default=104, help="problems for rollouts, and as many for training (default 104)")
    parser.add_argument("--validation", type=int, default=208, help="test problems (default 208)")
    parser.add_argument("--out", type=Path, default=Path("outputs/maths_rl"))
    a = parser.parse_args()
    print(effect_rl.power(a.validation, len(a.seeds)), flush=True)
    machine, out = _machine.facts(), a.out.resolve()
    settings = {key: getattr(a, key) for key in ("steps", "lr", "warm_start", "questions", "validation")}
    same_settings(out, settings)
    policy, hek, made = prepared(out, settings, machine)
    families = {q.id: q.meta["family"] for q in read_questions(out / "check.jsonl")}
    runs = {}
    for seed in a.seeds:
        for trained in a.trained:
            folder = out / f"grpo-{trained}-{seed}"
            one_run(folder, {"algorithm": "grpo", "trained": trained, "seed": seed, **made}, policy, hek)
            runs[trained, seed] = effect_rl.read_run(folder)
            write(machine, settings, [runs[key] for key in sorted(runs)], families)


def prepared(out: Path, settings: Mapping[str, Any], machine: Mapping[str, Any]) -> tuple[Path, Path, dict[str, Any]]:
    """Make what all runs start from: the policy, the HEK of its rollouts, and what a run keeps of its making."""
    warm = write_data(out, settings)
    policy, hek, rollouts = out / "policy", out / "hek", out / "rollouts"
    if not policy.is_dir():
        warm_start(fetch("smollm2-135m"), [derivation(q, random.Random(q.id)) for q in warm], Training(), policy)
    if not (rollouts / SUMMARY).is_file():
        played = ["--questions", str(out / "learn.jsonl"), "--model", str(policy), "--k", "4"]
        hiexp("rollout", *played, *EPISODES, "--resume", "--out", str(rollouts))
    if not (hek / "CURRENT").is_file():
        made_of = ["--trajectories", str(rollouts / TRAJECTORIES), "--encoder", str(fetch("minilm"))]
        hiexp("build", "--domain", "maths", *made_of, "--out", str(hek))
    tokens = PolicyTokenizer(policy)
    rolled_out = sum(tokens.count_prompt(t.messages) for t in read_trajectories(rollouts / TRAJECTORIES))
    made = {**settings, "policy": identify(str(policy)), "hek": HEK.load(hek).content_hash(), "rollout_tokens": rolled_out}
    return policy, hek, made | {key: machine[key] for key in ("commit", "date", "cpu")}


def write_data(out: Path, settings: Mapping[str, Any]) -> list[Question]:
    """Write learn.jsonl (to roll out), drill.jsonl (to train on) and check.jsonl (test problems), the families in turn.

    Returns:
        The problems of the warm start, which are none of these.
    """
    problems = [problems_of(family) for family in FAMILIES]
    train, test = ([[q for q in of if q.meta["split"] == split] for of in problems] for split in ("train", "test"))
    drill = [q for pair in zip(*train, strict=True) for q in pair]
    warm, learn = settings["warm_start"], settings["questions"]
    write_jsonl(out / "learn.jsonl", drill[warm : warm + learn])
    write_jsonl(out / "drill.jsonl", drill[warm + learn : warm + 2 * learn])
    write_jsonl(out / "check.jsonl", [q for pair in zip(*test, strict=True) for q in pair][: settings["validation"]])
    return drill[:warm]


def derivation(problem: Question, draw: random.Random) -> list[Message]:
    """Return the derivation of a problem as an episode; half of them show a piece of advice, and check each step where it says so."""
    *steps, answer = problem.meta["solution"].split("\n")
    rules = [json.loads(line) for line in MATHS.texts["rules_e1.jsonl"].splitlines()]
    checks, others = ([rule for rule in rules if (rule["finding"] == CHECKS) is wanted] for wanted in (True, False))
    shown = draw.choice(checks if draw.random() < 0.5 else others) if draw.random() < GUIDED else None
    hits = [Hit(Entry("e1", "e1", MATHS.kind_of(problem.question), shown["text"]), 1.0)] if shown else []
    block = fit_block("prompt", hits, PromptConfig().max_tokens, rough_tokens)
    if shown in checks:
        steps = list(map(checked, steps))
    messages = add_to_system(MATHS.first_messages(problem.question, "search_tags"), block)
    return [*messages, {"role": "assistant", "content": "\n\n".join([*steps, answer])}]


def checked(step: str) -> str:
    """Return a step with its check by the inverse operation: "3 + 4 = 7" with "7 - 4 = 3"."""
    calculation, result = step.split(" = ")
    first, sign, second = calculation.split()
    return f"{step}. Check: {result} {INVERSE[sign]} {second} = {first}."


def one_run(folder: Path, what: Mapping[str, Any], policy: Path, hek: Path) -> None:
    """Train once and evaluate what came out; the folder keeps what it was, metrics, episodes, evaluation."""
    if (folder / effect_rl.DONE).is_file():
        return
    print(f"\n== {folder.name}: {what['steps']} steps", flush=True)
    shutil.rmtree(folder, ignore_errors=True)  # half a run is none
    folder.mkdir(parents=True)
    train(RECIPE, what["algorithm"], overrides_of(folder, what, policy, hek), folder, what["steps"])
    files = ["--questions", str(folder.parent / "check.jsonl"), "--model", str(folder / "checkpoints"), "--hek", str(hek)]
    hiexp("eval", *files, "--arms", ARMS, *EPISODES, "--alone", "0", "--out", str(folder / "eval"))
    effect_rl.finish(folder, what)


def overrides_of(folder: Path, what: Mapping[str, Any], policy: Path, hek: Path) -> list[str]:
    """Return the settings of a run."""
    arm, *more = effect_rl.TRAINED[what["trained"]]
    return [*effect_rl.of_every_run(folder, what, policy, hek), f"hiexp.arm={arm}", f"data.train_batch_size={BATCH}", *more]


def write(machine: dict[str, Any], settings: dict[str, Any], runs: Sequence[dict[str, Any]], families: Mapping[str, str]) -> None:
    """Write the curves, their plot, the rows, and two tables: how training went, and what it led to."""
    outcome = effect_rl.outcomes(runs, families)
    seeds = {run["seed"] for run in runs}
    lines = [
        "# Experience while a policy is trained: mathematics",
        "",
        *_machine.as_lines(machine),
        "",
        f"{len(runs)} runs of {settings['steps']} steps of {4 * BATCH} episodes.",
        f"The HEK is made of {settings['questions'] * 4} episodes of the policy that they start from",
        f"({runs[0]['rollout_tokens']:,} tokens), counted in the second column alone.",
        effect_rl.power(settings["validation"], len(seeds)),
        "",
        *effect_rl.made_at(runs),
        "",
        *effect_rl.training_table(effect_rl.by_arm(runs)),
        "",
        "Means over seeds, and their range; columns as in effect_wordings_rl.md. Validation as the run plays.",
        "",
        *effect_rl.outcome_table(outcome),
        "",
        f"Greedy, {settings['validation']} test problems; paired by problem, against the policy trained and played without experience.",
    ]
    effect_rl.keep(NAME, {"machine": machine, "settings": settings, "outcome": outcome}, lines, runs)


if __name__ == "__main__":
    main()
