"""Does experience help while a policy is trained? GRPO and GSPO with and without it, several seeds, equal steps and episodes.

    make assets && python -m benchmarks.effect_rl --seeds 0 1 2

The bed is that of effect_lay without its chains of three searches: goals that the warm start does not teach, half of the questions in the
words of the corpus, half in everyday words. A HEK is built by rules from rollouts of the start policy on questions in the words of the
corpus; training is on other questions. Every algorithm is run with `hiexp.arm=none` and `full` (`--trained mixed`: in half of each group):
the same start, questions, order, seeds and number of episodes. Validation is on other countries, during training as each run plays, and
at its end without experience, with it, and with shuffled and random entries (`hiexp eval`). Every run is kept where it is done; an
interrupted benchmark goes on. About 15 minutes a run on 2 cores. Writes results/effect_wordings_rl.{json,md,svg} and the rows. `hiexp
report OUT` shows the runs. results/effect_rl.* and effect_lay_rl.* are of other beds (LOG, 2026-11-22 and 2026-11-28).
"""

import argparse
import gzip
import json
import shutil
import statistics
from collections.abc import Mapping, Sequence
from itertools import accumulate, cycle
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _machine, effect_lay
from benchmarks._results import RESULTS, publish_rows, same_settings, save_svg, table
from hiexp_verl.evaluate.tables import ALL, BASE, gap_as_text, table_of
from hiexp_verl.hek.store import HEK
from hiexp_verl.io.datasets import read_jsonl, read_questions, read_trajectories
from hiexp_verl.io.files import atomic_writer, write_jsonl
from hiexp_verl.ledger.gate import POWER_80
from hiexp_verl.models.tokenizer import PolicyTokenizer
from hiexp_verl.report.charts import mean_and_band
from hiexp_verl.report.html import plural
from hiexp_verl.rollout.policy import identify
from hiexp_verl.rollout.rollout import TRAJECTORIES
from hiexp_verl.types import Question
from recipes.cpu_demo.stages import balanced
from recipes.cpu_demo.training import REWARD, train
from recipes.demo_data.assets import fetch
from recipes.demo_data.factbook.countries import read_countries
from recipes.demo_data.factbook.lay_words import HELD_OUT, lay_questions
from recipes.demo_data.factbook.sets import write_lay_words

RECIPE = Path(__file__).parents[1] / "recipes" / "cpu_demo"
DONE = "done.json"  # in the folder of a finished run: what it was
NAME = "effect_wordings_rl"  # of the results
KINDS = [" > ".join([*way, goal]) for way in effect_lay.WAYS[:2] for goal in HELD_OUT]  # two searches
WORDINGS = {"plain": "in the words of the corpus", "lay": "in everyday words"}
TRAINED = {  # of a run: `hiexp.arm` and what else is set; "none" is what the others are compared with
    "none": ("none",),
    "full": ("full",),
    "mixed": ("full", "hiexp.group.arms=[full,none]"),  # half of each group explores without
}
VALIDATION = "val-core/hiexp/acc/mean@1"
CURVES = {
    "reward": REWARD,
    "reward's variance": "hiexp/reward_variance",
    "advantage's variance": "hiexp/advantage_variance",
    "gradient norm": "actor/grad_norm",
    "groups without variance": "hiexp/zero_variance_groups",
    "searches": "hiexp/searches",
    "entropy": "actor/entropy",
    "validation": VALIDATION,
    "tokens": "perf/total_num_tokens",
}
DRAWN = tuple(name for name in CURVES if name != "tokens")  # eight
MEANS = ("reward's variance", "advantage's variance", "gradient norm", "groups without variance", "searches")  # in the table


def main() -> None:
    """Run what is not done yet, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=12, help="of 16 episodes (default 12)")
    parser.add_argument("--lr", type=float, default=3e-5, help="(default 3e-5: so few steps of 1e-6 would change nothing)")
    parser.add_argument("--algorithms", nargs="+", default=["grpo", "gspo"], choices=("grpo", "gspo"))
    parser.add_argument("--trained", nargs="+", default=["none", "full"], choices=tuple(TRAINED), help="(default none full)")
    parser.add_argument("--warm-start", type=int, default=160, help="transcripts (default 160: enough to learn to read experience)")
    parser.add_argument("--questions", type=int, default=104, help="for rollouts, and as many for training (default 104)")
    parser.add_argument("--validation", type=int, default=104, help="questions about other countries (default 104)")
    parser.add_argument("--add", action="store_true", help="keep the runs that benchmarks/results has and this folder does not")
    parser.add_argument("--out", type=Path, default=Path("outputs/effect_rl"))
    arguments = parser.parse_args()
    print(power(arguments.validation, len(arguments.seeds)), flush=True)
    machine, out = _machine.facts(), arguments.out.resolve()
    settings = {key: value for key, value in vars(arguments).items() if key not in ("out", "add", "seeds", "algorithms", "trained")}
    same_settings(out, settings)
    runs = published(settings) if arguments.add else {}
    policy, hek, wordings, made = prepared(out, settings, machine)
    for seed in arguments.seeds:
        for algorithm in arguments.algorithms:
            for trained in arguments.trained:
                folder = out / f"{algorithm}-{trained}-{seed}"
                what = {"algorithm": algorithm, "trained": trained, "seed": seed}
                arm, *more = TRAINED[trained]
                one_run(folder, {**what, **made}, policy, hek, [f"hiexp.arm={arm}", *more])
                runs[algorithm, trained, seed] = read_run(folder)
                write(machine, settings, [runs[key] for key in sorted(runs)], wordings)


def prepared(out: Path, settings: Mapping[str, Any], machine: Mapping[str, Any]) -> tuple[Path, Path, dict[str, str], dict[str, Any]]:
    """Make what all runs start from.

    Returns:
        The policy, the HEK of its rollouts, the wording of each validation question, and what a run keeps of its making.
    """
    write_data(out, settings["questions"], settings["validation"])
    policy = effect_lay.warm_start(out, settings["warm_start"])
    effect_lay.made(out, policy, "own-0", 4)
    hek, tokens = out / "heks" / "own-0", PolicyTokenizer(policy)
    wordings = {q.id: WORDINGS[q.id.partition("-")[0]] for q in read_questions(out / "check.jsonl")}
    rolled_out = sum(tokens.count_prompt(t.messages) for t in read_trajectories(out / "rollouts-0" / TRAJECTORIES))
    made = {**settings, "policy": identify(str(policy)), "hek": HEK.load(hek).content_hash(), "rollout_tokens": rolled_out}
    return policy, hek, wordings, made | {key: machine[key] for key in ("commit", "date", "cpu")}


def write_data(out: Path, learn: int, held_out: int) -> None:
    """Write learn.jsonl (to roll out, in the words of the corpus), drill.jsonl (to train on) and check.jsonl (other countries)."""
    if (out / "drill.jsonl").is_file():
        return
    write_lay_words(fetch("factbook"), out)
    plain, lay, test = (read_questions(out / f"{name}.jsonl") for name in ("train", "train_lay", "test"))
    rolled_out = balanced(plain, KINDS, learn)
    write_jsonl(out / "learn.jsonl", rolled_out)
    asked = {q.id for q in rolled_out}
    others = [q for q in lay_questions(read_countries(fetch("factbook")), HELD_OUT, "plain") if q.meta["split"] == "test"]
    write_jsonl(out / "check.jsonl", alternately(others, test, held_out))
    write_jsonl(out / "drill.jsonl", alternately([q for q in plain if q.id not in asked], lay, learn))


def alternately(plain: Sequence[Question], lay: Sequence[Question], count: int) -> list[Question]:
    """Return as many questions of each wording, all kinds alike; the two of a pair are of the same kind."""
    pairs = zip(balanced(plain, KINDS, count // 2), balanced(lay, KINDS, count // 2), strict=True)
    return [q for pair in pairs for q in pair]


def one_run(
    folder: Path, what: Mapping[str, Any], policy: Path, hek: Path, settings: Sequence[str], arms: str = effect_lay.CONTROLS
) -> None:
    """Train once with these settings and evaluate what came out; the folder keeps what it was, metrics, episodes, evaluation."""
    if (folder / DONE).is_file():
        return
    print(f"\n== {folder.name}: {what['steps']} steps", flush=True)
    shutil.rmtree(folder, ignore_errors=True)  # half a run is none
    folder.mkdir(parents=True)
    train(RECIPE, what["algorithm"], overrides_of(folder, what, policy, hek, settings), folder, what["steps"])
    played = effect_lay.played_on(folder.parent, folder / "checkpoints", "check")
    at_once = ["--batch-size", str(effect_lay.AT_A_TIME), "--alone", "0"]
    effect_lay.hiexp("eval", *played, "--hek", str(hek), "--arms", arms, *at_once, "--out", str(folder / "eval"))
    finish(folder, what)


def finish(folder: Path, what: Mapping[str, Any]) -> None:
    """Remove the weights of a run that is evaluated, and note what it was."""
    for weights in (folder / "checkpoints").glob("global_step_*/actor"):
        shutil.rmtree(weights)  # half a GiB each; our state stays, for the report
    with atomic_writer(folder / DONE) as file:
        file.write(json.dumps(what) + "\n")


def overrides_of(folder: Path, what: Mapping[str, Any], policy: Path, hek: Path, settings: Sequence[str]) -> list[str]:
    """Return the settings of a run; those that are given come last."""
    return [
        *of_every_run(folder, what, policy, hek),
        f"hiexp.search.corpus={folder.parent / 'corpus.jsonl'}",
        "data.train_batch_size=4",
        "actor_rollout_ref.actor.ppo_mini_batch_size=2",  # two updates a step: the second is off-policy, where GRPO and GSPO differ
        "actor_rollout_ref.rollout.n=4",
        *settings,
    ]


def of_every_run(folder: Path, what: Mapping[str, Any], policy: Path, hek: Path) -> list[str]:
    """Return what a run of any domain is given: its start, questions, seed, steps and places."""
    data, seed, steps = folder.parent, what["seed"], what["steps"]
    return [
        f"hiexp.hek={hek}",
        f"hiexp.dump_dir={folder / 'episodes'}",
        f"hiexp.seed={seed}",
        f"data.train_files={data / 'drill.jsonl'}",
        f"data.val_files={data / 'check.jsonl'}",
        f"data.seed={seed}",
        f"actor_rollout_ref.model.path={policy}",
        f"actor_rollout_ref.actor.optim.lr={what['lr']}",
        f"actor_rollout_ref.rollout.seed={seed}",
        f"trainer.total_training_steps={steps}",
        f"trainer.save_freq={steps}",
        f"trainer.default_local_dir={folder / 'checkpoints'}",
        f"trainer.test_freq={max(1, steps // 2)}",
        "trainer.val_before_train=true",
    ]


def published(settings: Mapping[str, Any], name: str = NAME) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Return the runs with these settings that the results hold, by algorithm, arm of training and seed."""
    if not (RESULTS / f"{name}.json").is_file():
        return {}
    kept = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["runs"]
    runs = {(r["algorithm"], r["trained"], r["seed"]): r | {"rows": []} for r in kept if settings.items() <= r.items()}
    with gzip.open(RESULTS / f"{name}.rows.jsonl.gz", "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            if (key := (row.pop("algorithm"), row.pop("trained"), row["seed"])) in runs:
                runs[key]["rows"].append(row)
    return runs


def read_run(folder: Path, names: Mapping[str, str] = CURVES) -> dict[str, Any]:
    """Return what a finished run was, its curves as (step, value), and the rows of its evaluation.

    Args:
        names: of the curves, with those of verl's metrics.
    """
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    curves = {name: [(row["step"], row["data"][key]) for row in logged if key in row["data"]] for name, key in names.items()}
    rows = [row for _, row in read_jsonl(folder / "eval" / "rows.jsonl", "rows")]
    return {**json.loads((folder / DONE).read_text(encoding="utf-8")), "curves": curves, "rows": rows}


def write(machine: dict[str, Any], settings: dict[str, Any], runs: Sequence[dict[str, Any]], parts: Mapping[str, str]) -> None:
    """Write the curves, their plot, the rows, and two tables: how training went, and what it led to."""
    arms, outcome = by_arm(runs), outcomes(runs, parts)
    lines = [
        "# Experience while a policy is trained: questions of two wordings",
        "",
        *_machine.as_lines(machine),
        "",
        f"{len(runs)} runs of {settings['steps']} steps of 16 episodes. The HEK is made of {settings['questions'] * 4} episodes of the",
        f"policy that they start from ({runs[0]['rollout_tokens']:,} tokens), counted in the second column alone.",
        "",
        power(settings["validation"], max(len(of) for of in arms.values())),
        "",
        *made_at(runs),
        "",
        *training_table(arms),
        "",
    ]
    lines += [
        "Means over seeds, and their range. Tokens: prompts and responses of all steps. `same tokens`: the reward of the last three",
        "steps before any run had spent more than the one that spent the least; of validation, what lies then on the line between",
        "two. Validation as the run plays: with experience where it has it.",
        "",
        *outcome_table(outcome),
        "",
    ]
    lines += [
        f"Greedy episodes on {settings['validation']} questions about countries that occur in no training question. A question is worth"
    ]
    lines += ["its mean over seeds; intervals and p are of questions, paired, against the policy trained and played without experience."]
    keep(NAME, {"machine": machine, "settings": settings, "outcome": outcome}, lines, runs)


def power(questions: int, seeds: int) -> str:
    """Return which difference of two arms the evaluation can see: of shares near one half, if nothing but chance parts their episodes."""
    least = (1.96 + POWER_80) * sqrt(2 * 0.25 / (questions * seeds))
    return (
        f"Said before: with {questions} questions and {plural(seeds, 'seed')} a difference of {least:.3f} in the share right is seen in 80 "
        "of 100 cases; trainings that differ by their seeds need more."
    )


def by_arm(runs: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return the runs by algorithm and arm of training."""
    arms: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for r in runs:
        arms.setdefault((r["algorithm"], r["trained"]), []).append(r)
    return arms


def keep(name: str, found: Mapping[str, Any], lines: Sequence[str], runs: Sequence[dict[str, Any]], drawn: Sequence[str] = DRAWN) -> None:
    """Write what was found and every run, the page, the rows of the evaluations, and the plot of these curves, which the page ends with."""
    kept = [{key: value for key, value in r.items() if key != "rows"} for r in runs]
    rows = ({"algorithm": r["algorithm"], "trained": r["trained"], **row, "seed": r["seed"]} for r in runs for row in r["rows"])
    publish_rows(name, {**found, "runs": kept}, "\n".join([*lines, "", f"![curves]({name}.svg)", ""]), rows)
    plot({f"{algorithm} {trained}": of for (algorithm, trained), of in by_arm(runs).items()}, RESULTS / f"{name}.svg", drawn)


def made_at(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each commit and warm start: runs of another day start from a policy and a HEK of their own."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for r in runs:
        made = (r["commit"], r["date"], r["cpu"], r["policy"][:12], r["hek"][:12])
        groups.setdefault(made, []).append(f"{r['algorithm']} {r['trained']} {r['seed']}")
    return [
        f"- {', '.join(names)}: commit {commit}, {date}, {cpu}; policy {policy}, HEK {hek}"
        for (commit, date, cpu, policy, hek), names in groups.items()
    ]


def training_table(arms: dict[tuple[str, str], list[dict[str, Any]]], without: Sequence[str] = ("none",)) -> list[str]:
    """Return a line for each algorithm and arm of training: how training went; the arms `without` need no HEK."""
    budget = min(sum(tokens for _, tokens in r["curves"]["tokens"]) for of in arms.values() for r in of)
    heads = ["run", "seeds", "tokens", "with the HEK's rollouts", "reward, first 3 steps", "last 3", "same tokens", *MEANS]
    rows = []
    for (algorithm, trained), of in arms.items():
        rewards = [r["curves"]["reward"] for r in of]
        within = [reward[: steps_within(r["curves"]["tokens"], budget)] for r, reward in zip(of, rewards, strict=True)]
        spent = statistics.fmean(sum(tokens for _, tokens in r["curves"]["tokens"]) for r in of)
        with_rollouts = spent + (0 if trained.partition(",")[0] in without else of[0]["rollout_tokens"])
        cells = [f"{algorithm} {trained}", str(len(of)), f"{spent:,.0f}", f"{with_rollouts:,.0f}"]
        cells += [_spread([_mean(part) for part in parts]) for parts in ([r[:3] for r in rewards], [r[-3:] for r in rewards])]
        cells += [_spread([_mean(reward[-3:]) for reward in within])]
        cells += [_spread([_mean(r["curves"][name]) for r in of]) for name in MEANS]
        cells += [_spread([r["curves"]["validation"][place][1] for r in of]) for place in (0, len(of[0]["curves"]["validation"]) // 2, -1)]
        cells += [_spread([validation_within(r["curves"], budget) for r in of])]
        rows.append(cells)
    return table([*heads, "validation before", "half-way", "after", "validation, same tokens"], rows, numbers=set())


def steps_within(tokens: Sequence[Sequence[float]], budget: float) -> int:
    """Return how many steps a run had done when it had spent no more than the budget."""
    return sum(spent <= budget for spent in accumulate(step for _, step in tokens))


def validation_within(curves: Mapping[str, Sequence[Sequence[float]]], budget: float) -> float:
    """Return what validation was when a run had spent the budget, between two validations on the line through them."""
    spent = [0.0, *accumulate(tokens for _, tokens in curves["tokens"])]
    return float(np.interp(budget, [spent[int(step)] for step, _ in curves["validation"]], [value for _, value in curves["validation"]]))


def outcomes(runs: Sequence[dict[str, Any]], parts: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return `hiexp eval`'s lines for each algorithm, for all questions and by part: all arms against neither.

    Every arm of training with the seeds that were run without experience as well; half a pair compares with nothing.
    """
    lines: list[dict[str, Any]] = []
    for algorithm in dict.fromkeys(r["algorithm"] for r in runs):
        of = {(r["trained"], r["seed"]): r for r in runs if r["algorithm"] == algorithm}
        names = ("none", *(trained for trained, _ in of))
        seeds_of = {trained: {seed for each, seed in of if each == trained and ("none", seed) in of} for trained in names}
        seeds_of["none"] = set[int]().union(*(seeds for trained, seeds in seeds_of.items() if trained != "none"))
        for trained, seeds in seeds_of.items():
            both = [r for (each, seed), r in of.items() if each in (trained, "none") and seed in seeds]
            lines += [line for line in _outcome(both, parts) if line["arm"].startswith((BASE, "none")) == (trained == "none")]
    return sorted(lines, key=lambda line: line["dataset"])


def _outcome(runs: Sequence[dict[str, Any]], parts: Mapping[str, str]) -> list[dict[str, Any]]:
    rows = [
        row | {"dataset": f"{r['algorithm']}, {part}", "seed": r["seed"], "arm": _arm(r["trained"], row["arm"])}
        for r in runs
        for row in r["rows"]
        for part in ("all", parts[row["id"]])
    ]
    lines = [line for line in table_of(rows) if line["dataset"] != ALL]
    for line in lines:  # trainings differ more than questions do: show each
        of = [row for row in rows if (row["dataset"], row["arm"]) == (line["dataset"], line["arm"])]
        line["by_seed"] = [
            statistics.fmean(row["concise"] for row in of if row["seed"] == seed) for seed in sorted({row["seed"] for row in of})
        ]
    return lines


def _arm(trained: str, arm: str) -> str:
    return BASE if (trained, arm) == ("none", BASE) else f"{trained}, {arm}"


def outcome_table(outcome: Sequence[dict[str, Any]]) -> list[str]:
    """Return these lines as Markdown."""
    rows = []
    for line in outcome:
        trained, played = ("none", BASE) if line["arm"] == BASE else line["arm"].split(", ")
        gap = line.get("concise_minus_none")
        low, high = line["concise_interval"]
        cells = [line["dataset"], trained, played, line["episodes"], f"{line['concise']:.3f} [{low:.3f}, {high:.3f}]"]
        cells += [gap_as_text(gap) if gap else "", ", ".join(f"{share:.2f}" for share in line["by_seed"])]
        cells += [f"{line[name]:.3f}" for name in ("em", "format")]
        rows.append([*cells, *(f"{line[name]:.2f}" for name in ("searches", "tokens"))])
    heads = ["questions", "trained with", "played with", "episodes", "right [95%]", "against none, none", "right of each seed"]
    return table([*heads, "EM", "answered", "searches", "tokens written"], rows, numbers=set())


def plot(arms: dict[str, list[dict[str, Any]]], path: Path, names: Sequence[str]) -> None:
    """Draw these curves: the mean over seeds in a band from the lowest to the highest."""
    from matplotlib.figure import Figure

    across = min(4, len(names))
    down = len(names) // across
    drawing = Figure(figsize=(4.2 * across, 3.6 * down), layout="constrained")
    for axis, name in zip(drawing.subplots(down, across, squeeze=False).flat, names, strict=True):
        for style, (arm, of) in zip(cycle(("-", "--", "-.", ":")), arms.items(), strict=False):
            mean, band = mean_and_band([r["curves"][name] for r in of])
            (drawn,) = axis.plot(*zip(*mean, strict=True), style, label=arm)
            axis.fill_between(*zip(*band, strict=True), alpha=0.12, color=drawn.get_color())
        axis.set(xlabel="step", ylabel=name)
        axis.grid(visible=True, alpha=0.3)
    drawing.axes[0].legend()
    save_svg(drawing, path)


def _mean(points: Sequence[Sequence[float]]) -> float:
    return statistics.fmean(value for _, value in points)


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.3f} [{min(values):.3f}, {max(values):.3f}]"


if __name__ == "__main__":
    main()
