"""Does the loop stop showing what harms? Trainings that begin with wrong plans, with the loop and without it.

    make assets && python -m benchmarks.loop_rl --seeds 0 1 2

The bed is that of effect_rl, in the words of the corpus, where a wrong plan costs right answers. Every kind of question has the plan of
another goal. Half of the rollouts of each group see no experience, the others the HEK; `on` adds `hiexp.loop`, as recipes/closed_loop
has it: then one of the two plays the candidate while there is one. The same start, questions, order, seeds and number of episodes. What
is compared: the reward with minus without experience in the same groups, by step, and the policies at the end, greedy on questions about
other countries, each with the version that is in use then. About 12 minutes a run on 2 cores; every run is kept where it is done.
Writes results/loop_rl.{json,md,svg} and the rows.
"""

import argparse
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import sqrt
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks import _machine, effect_lay, effect_rl
from benchmarks._results import loop_events, same_settings, table
from hiexp_verl.evaluate.tables import BASE, gap_as_text, pairs_of
from hiexp_verl.hek.store import HEK
from hiexp_verl.io.datasets import read_questions
from hiexp_verl.ledger.drift import Span, with_rows
from hiexp_verl.ledger.rows import LedgerRow, read_ledger
from hiexp_verl.rollout.policy import identify
from recipes.closed_loop.run import write_wrong
from recipes.cpu_demo.training import train
from recipes.demo_data.assets import fetch

NAME = "loop_rl"  # of the results
ROLLOUTS = ("hiexp.group.arms=[none,full,none,full]", "hiexp.ledger.enabled=true")
ARMS = {
    "off": (),
    "on": (  # as recipes/closed_loop/loop.yaml
        "hiexp.loop.enabled=true",
        "hiexp.loop.every=2",
        "hiexp.loop.lag=1",
        "hiexp.loop.plan_support=1",
        "hiexp.loop.max_steps=3",
        "hiexp.loop.gate.rule=strict",
        "hiexp.loop.gate.min_groups=8",
    ),
}
BATCH = 8  # questions a step, four rollouts each
BED = (
    f"data.train_batch_size={BATCH}",
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    "trainer.val_before_train=false",
    "trainer.test_freq=-1",
)
CURVES = {
    "seconds": "timing_s/step",
    "loop's seconds": "hiexp/loop/seconds",
    "version": "hiexp/loop/version",
    "gain of the candidate": "hiexp/loop/gain",
}
DRAWN = ("reward with minus without", "version")
START = "0001"  # the version of wrong plans
IN_USE = "in use"  # the versions of a run as one
Z95 = 1.96


def main() -> None:
    """Run what is not done yet, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=tuple(ARMS), help="(default off on)")
    parser.add_argument("--steps", type=int, default=10, help=f"of {4 * BATCH} episodes (default 10)")
    parser.add_argument("--lr", type=float, default=3e-5, help="(default 3e-5, as effect_rl: the policy learns while the bank changes)")
    parser.add_argument("--warm-start", type=int, default=160, help="transcripts (default 160)")
    parser.add_argument("--questions", type=int, default=104, help="for training (default 104)")
    parser.add_argument("--validation", type=int, default=104, help="questions about other countries (default 104)")
    parser.add_argument("--out", type=Path, default=Path("outputs/loop_rl"))
    a = parser.parse_args()
    print(effect_rl.power(a.validation, len(a.seeds)), flush=True)
    machine, out = _machine.facts(), a.out.resolve()
    settings = {key: getattr(a, key) for key in ("steps", "lr", "warm_start", "questions", "validation")}
    same_settings(out, settings)
    effect_rl.write_data(out, a.questions, a.validation)
    policy, wrong = effect_lay.warm_start(out, a.warm_start), out / "heks" / "wrong"
    if not (wrong / "CURRENT").is_file():
        write_wrong(read_questions(out / "learn.jsonl"), str(fetch("minilm")), wrong)
    made = {**settings, "policy": identify(str(policy)), "hek": HEK.load(wrong).content_hash()}
    made |= {key: machine[key] for key in ("commit", "date", "cpu")}
    runs = {}
    for seed in a.seeds:
        for arm in a.arms:
            folder = out / f"{arm}-{seed}"
            one_run(folder, {"algorithm": "grpo", "trained": arm, "seed": seed, **made}, policy, wrong)
            runs[arm, seed] = read_run(folder)
            write(machine, settings, [runs[key] for key in sorted(runs)])


def one_run(folder: Path, what: Mapping[str, Any], policy: Path, wrong: Path) -> None:
    """Train once, and play what came out with the version that is in use then; the folder keeps the HEK with its versions and ledger."""
    if (folder / effect_rl.DONE).is_file():
        return
    print(f"\n== {folder.name}: {what['steps']} steps", flush=True)
    shutil.rmtree(folder, ignore_errors=True)  # half a run is none
    shutil.copytree(wrong, folder / "hek")
    train(effect_rl.RECIPE, what["algorithm"], settings_of(folder, what, policy), folder, what["steps"])
    served = in_use(folder)
    at_once = ["--batch-size", str(effect_lay.AT_A_TIME), "--alone", "0", "--out", str(folder / "eval")]
    files = effect_lay.played_on(folder.parent, folder / "checkpoints", "check")
    effect_lay.hiexp("eval", *files, "--hek", str(served), "--arms", f"{BASE},full", *at_once)
    effect_rl.finish(folder, {**what, "served": served.name})


def settings_of(folder: Path, what: Mapping[str, Any], policy: Path) -> list[str]:
    """Return the settings of a run."""
    more = (*BED, *ROLLOUTS, *ARMS[what["trained"]], f"data.train_files={folder.parent / 'learn.jsonl'}")
    return effect_rl.overrides_of(folder, what, policy, folder / "hek", more)


def in_use(folder: Path) -> Path:
    """Return the version that a run ended with."""
    return folder / "hek" / ([START, *changes_of(loop_events(folder)).values()][-1])


def changes_of(events: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Return which version came into use at which step."""
    return {event["step"] + 1: event["version"] for event in events if event["event"] in ("accept", "held")}


def read_run(folder: Path) -> dict[str, Any]:
    """Return what a finished run was, its curves, its events, what its ledger says, and the rows of its evaluation."""
    run = effect_rl.read_run(folder, CURVES)
    hashes = {HEK.load(path).header.content_hash: path.name for path in sorted((folder / "hek").glob("[0-9]*"))}
    ledger = [replace(row, hek=hashes.get(row.hek, "")) for row in read_ledger(folder / "hek")]
    return run | {"events": loop_events(folder), "ledger": ledger}


def served_rows(run: Mapping[str, Any]) -> list[LedgerRow]:
    """Return the rows of a run without those of candidates: every version that was in use is called `IN_USE`."""
    rows, changes = [], changes_of(run["events"])
    for row in sorted(run["ledger"], key=lambda row: row.step):
        version = next((changes[step] for step in sorted(changes, reverse=True) if step <= row.step), START)
        if row.arm == BASE or row.hek == version:
            rows.append(replace(row, group=f"{run['seed']}/{row.group}", hek=IN_USE))
    return rows


def span_of(runs: Sequence[Mapping[str, Any]], first: int, last: int) -> Span:
    """Return the sums over the mixed groups of these steps, of all seeds."""
    rows = [row for run in runs for row in served_rows(run) if first <= row.step <= last]
    return with_rows(Span(IN_USE), rows)


def gap_table(arms: Mapping[str, Sequence[Mapping[str, Any]]], steps: int) -> list[str]:
    """Return the reward with minus without experience, by part of the training, with the loop and without it."""
    third, rows = max(1, steps // 3), []
    for name, first, last in (("first third", 1, third), ("the rest", third + 1, steps), ("last third", steps - third + 1, steps)):
        spans = {arm: span_of(runs, first, last) for arm, runs in arms.items()}
        cells = [f"{span.gap:+.3f} [{span.gap - Z95 * span.error:+.3f}, {span.gap + Z95 * span.error:+.3f}]" for span in spans.values()]
        if len(spans) == len(ARMS):
            off, on = spans.values()
            difference, error = on.gap - off.gap, sqrt(on.error**2 + off.error**2)
            cells.append(f"{difference:+.3f} [{difference - Z95 * error:+.3f}, {difference + Z95 * error:+.3f}]")
        rows.append([f"{name}: steps {first} to {last}", *cells, ", ".join(str(span.groups) for span in spans.values())])
    heads = ["reward with minus without", *arms, *(["on minus off"] if len(arms) == len(ARMS) else []), "groups"]
    return table(heads, rows, numbers=set())


def events_table(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the loop did in each run."""
    rows = []
    for run in runs:
        for event in run["events"]:
            verdict, name = event.get("verdict") or {}, event.get("version", "")
            numbers = f"{verdict['difference']:+.3f}, error {verdict['error']:.3f}, {verdict['look']} groups" if verdict else ""
            changed = f"{len(event['came'])} came, {len(event['went'])} went" if "came" in event else ""
            rows.append([run["seed"], event["step"], event["event"], name, numbers or changed or event.get("why", "")])
    return table(["seed", "step", "what", "version", "numbers"], rows, numbers=set())


def end_table(arms: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return how the trained policies play, with the version in use and without, and the arms against each other, paired by question."""
    rows = [
        row | {"dataset": row["arm"], "arm": arm, "seed": run["seed"]} for arm, runs in arms.items() for run in runs for row in run["rows"]
    ]
    lines = []
    for played in (BASE, "full"):
        of = [row for row in rows if row["dataset"] == played]
        shares = [f"{fmean(row['concise'] for row in of if row['arm'] == arm):.3f}" for arm in arms]
        pair = next((p for p in pairs_of(of) if p["measure"] == "concise" and (p["arm"], p["against"]) == ("on", "off")), None)
        lines.append([played, *shares, gap_as_text(pair) if pair else ""])
    return table(["played with", *arms, "on against off"], lines, numbers=set())


def seconds_line(arms: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return what the loop costs: its own seconds in the trainer, and the median step beside that without it."""
    steps = {arm: [value for run in runs for step, value in run["curves"]["seconds"] if step > 1] for arm, runs in arms.items()}
    own = [value for run in arms.get("on", ()) for _, value in run["curves"]["loop's seconds"]]
    if not own:
        return ""
    took = {arm: median(seconds) for arm, seconds in steps.items()}
    line = f"The loop itself takes {fmean(own):.2f} s of a step of {took['on']:.1f} s (median), a share of {fmean(own) / took['on']:.4f}"
    return f"{line}; without it a step takes {took['off']:.1f} s." if "off" in took else f"{line}."


def write(machine: dict[str, Any], settings: dict[str, Any], runs: Sequence[dict[str, Any]]) -> None:
    """Write every run, the rows of its training and its evaluation, the tables and the curves."""
    arms = {arm: of for arm in ARMS if (of := [run for run in runs if run["trained"] == arm])}
    seeds = sorted({run["seed"] for run in runs})
    lines = [
        "# Trainings that begin with wrong plans, with the loop and without it",
        "",
        *_machine.as_lines(machine),
        "",
        f"{len(runs)} runs of {settings['steps']} steps of {4 * BATCH} episodes, seeds {', '.join(map(str, seeds))}.",
        effect_rl.power(settings["validation"], len(seeds)),
        "",
        *effect_rl.made_at(runs),
        "",
        *gap_table(arms, settings["steps"]),
        "",
        "With the version in use (candidates are left out), in groups of both; 95% intervals over groups of all seeds.",
        "",
        *events_table(arms.get("on", ())),
        "",
        *end_table(arms),
        "",
        f"Share right, greedy, {settings['validation']} questions about other countries; `full`: with the version in use at the end.",
        "",
        seconds_line(arms),
    ]
    kept = []
    for run in runs:
        of_steps = ((step, span_of([run], step, step)) for step in range(1, settings["steps"] + 1))
        gap = [(step, span.gap) for step, span in of_steps if span.groups]
        trained = [{"step": r.step, "group": r.group, "version": r.hek, "arm": r.arm, "reward": r.reward} for r in run["ledger"]]
        without = {key: value for key, value in run.items() if key != "ledger"}
        kept.append({**without, "curves": {**run["curves"], DRAWN[0]: gap}, "rows": [*run["rows"], *trained]})
    effect_rl.keep(NAME, {"machine": machine, "settings": settings}, lines, kept, DRAWN)


if __name__ == "__main__":
    main()
