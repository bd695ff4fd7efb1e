"""Does experience that was distilled into the weights do what experience in the prompt does? Four trainings, each played with and without.

    make assets && python -m benchmarks.internalise --seeds 0 1 2
    python -m benchmarks.internalise --seeds 0 --arms hek --add              # one run
    python -m benchmarks.internalise --seeds 0 --arms none hek hek,clip=0.02 hek,clip=0.5 hek,top_k=16 hek,epochs=2 hek,lr=1e-5

The bed is that of effect_rl: its questions, HEK, warm start and validation; a step has twice its questions, for rounds need rollouts.

| arm | training |
| --- | --- |
| none | GRPO without experience |
| sibling | the same, and after each step a round of self-distillation: the teacher reads another attempt that was right (Search-E1) |
| mixed | GRPO, half of each group with experience |
| hek | as mixed, and after each step a round: the teacher reads E2 and E3 of the HEK |

Every run has the same start, questions, order, seeds and number of episodes; what a round reads and learns is counted as tokens, too, and
the columns "same tokens" compare at the budget of the run that spent least. At its end each policy plays without experience, with what a
teacher of `hek` reads (`prompt`), and with all of it (`full`): `hek` played with `none` against `mixed` played with `prompt` is context
distilled against context kept. An arm may change settings of hiexp.distil, and the learning rate of the run, to choose them on one seed.
Every run is kept where it is done; an interrupted benchmark goes on. Writes results/internalise.{json,md,svg} and the rows.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks import _machine, effect_rl
from benchmarks._results import same_settings, table
from hiexp_verl.config import SelfDistilConfig
from hiexp_verl.evaluate.tables import BASE

NAME = "internalise"  # of the results
PLAYED = f"{BASE},prompt,full"
ROUNDS = {"sibling": "none", "hek": "mixed"}  # arms with rounds, each by its privilege: as which arm of effect_rl its steps are played
ARMS = ("none", "sibling", "mixed", "hek")
LR = "lr"  # of an arm: not of the round alone, which has the optimiser of the run
CHANGEABLE = (LR, *(field.name for field in fields(SelfDistilConfig) if field.name not in ("every", "privilege")))
BATCH = 8  # questions a step
# In every arm: micro-batches of one row, so that two of eight students can be watched; what a round keeps, to bring it back.
BED = (
    f"data.train_batch_size={BATCH}",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=1",
    "actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,hf_model]",
)
DISTIL = {"every": "1", "mini_batch": "2"}
CURVES = {
    **effect_rl.CURVES,
    "round": "hiexp/distil/tokens",
    "seconds": "timing_s/step",
    "updates": "hiexp/distil/updates",
    "stopped": "hiexp/distil/stopped",
    "drift": "hiexp/distil/drift",
    "held-out KL before": "hiexp/distil/held_out_kl_before",
    "held-out KL after": "hiexp/distil/held_out_kl",
}


def main() -> None:
    """Run what is not done yet, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", type=arm_of, nargs="+", default=list(ARMS), metavar="ARM[,KEY=VALUE]", help=f"of {', '.join(ARMS)}")
    parser.add_argument("--steps", type=int, default=6, help=f"of {4 * BATCH} episodes (default 6)")
    parser.add_argument("--lr", type=float, default=3e-5, help="(default 3e-5, as effect_rl)")
    parser.add_argument("--warm-start", type=int, default=160, help="transcripts (default 160)")
    parser.add_argument("--questions", type=int, default=104, help="for rollouts, and as many for training (default 104)")
    parser.add_argument("--validation", type=int, default=104, help="questions about other countries (default 104)")
    parser.add_argument("--add", action="store_true", help="keep the runs that benchmarks/results has and this folder does not")
    parser.add_argument("--name", default=NAME, help=f"of the results, to choose settings: another one (default {NAME})")
    parser.add_argument("--dry-run", action="store_true", help="print the settings of each run, and what the benchmark can see")
    parser.add_argument("--out", type=Path, default=Path("outputs/internalise"))
    a = parser.parse_args()
    print(effect_rl.power(a.validation, len(a.seeds)), flush=True)
    if a.dry_run:
        print("\n".join(f"{folder_of(a.out, arm, seed)}: {' '.join(settings_of(arm))}" for seed in a.seeds for arm in a.arms))
        return
    machine, out = _machine.facts(), a.out.resolve()
    settings = {key: getattr(a, key) for key in ("steps", "lr", "warm_start", "questions", "validation")}
    same_settings(out, settings)
    runs = effect_rl.published(settings, a.name) if a.add else {}
    policy, hek, wordings, made = effect_rl.prepared(out, settings, machine)
    for seed in a.seeds:
        for arm in a.arms:
            folder = folder_of(out, arm, seed)
            what = {"algorithm": "grpo", "trained": arm, "seed": seed}
            effect_rl.one_run(folder, {**what, **made}, policy, hek, settings_of(arm), PLAYED)
            runs["grpo", arm, seed] = with_rounds(effect_rl.read_run(folder, CURVES))
            write(a.name, machine, settings, [runs[key] for key in sorted(runs)], wordings)


def arm_of(text: str) -> str:
    """Return an arm that can be run.

    Raises:
        argparse.ArgumentTypeError: it cannot.
    """
    name, *changes = text.split(",")
    if name not in ARMS:
        raise argparse.ArgumentTypeError(f"there is no arm {name!r}; give one of {', '.join(ARMS)}")
    for key in (change.partition("=")[0] for change in changes):
        if key not in CHANGEABLE or (name not in ROUNDS and key != LR):
            raise argparse.ArgumentTypeError(f"{text}: {key!r} is not to be changed; give KEY=VALUE, of {', '.join(CHANGEABLE)}")
    return text


def settings_of(arm: str) -> list[str]:
    """Return the settings of a run of this arm, beside those of effect_rl."""
    name, *changes = arm.split(",")
    given = dict(change.split("=", 1) for change in changes)
    experience, *more = effect_rl.TRAINED[ROUNDS.get(name, name)]
    settings = [*BED, f"hiexp.arm={experience}", *more]
    if LR in given:
        settings.append(f"actor_rollout_ref.actor.optim.lr={given.pop(LR)}")
    distil = {**DISTIL, "privilege": name, **given} if name in ROUNDS else {}
    return settings + [f"hiexp.distil.{key}={value}" for key, value in distil.items()]


def folder_of(out: Path, arm: str, seed: int) -> Path:
    """Return where a run lies."""
    return out / f"grpo-{arm.replace(',', '-').replace('=', '-')}-{seed}"


def with_rounds(run: dict[str, Any]) -> dict[str, Any]:
    """Return a run whose tokens of a step include those of its round."""
    curves = dict(run["curves"])
    of_rounds = dict(curves["round"])
    curves["tokens"] = [(step, tokens + of_rounds.get(step, 0)) for step, tokens in curves["tokens"]]
    return {**run, "curves": curves}


def rounds_table(arms: Mapping[tuple[str, str], Sequence[dict[str, Any]]]) -> list[str]:
    """Return a line for each arm: seconds and tokens of its steps, and what its rounds did."""
    rows = []
    for (_, arm), runs in arms.items():
        points = {name: [value for r in runs for _, value in r["curves"][name]] for name in CURVES}
        cells = [arm, f"{sum(points['seconds']) / len(runs):,.0f}", f"{sum(points['round']) / max(1, sum(points['tokens'])):.2f}"]
        cells += [f"{sum(points[name]) / len(runs):.1f}" if points[name] else "" for name in ("updates", "stopped")]
        held = ("held-out KL before", "held-out KL after", "drift")
        rows.append([*cells, *(f"{fmean(points[name]):.4f}" if points[name] else "" for name in held)])
    heads = ["run", "seconds of its steps", "share of tokens in rounds", "updates of rounds", "rounds stopped"]
    return table([*heads, "held-out KL before", "after", "drift"], rows, numbers=set(range(1, 8)))


def write(name: str, machine: dict[str, Any], settings: dict[str, Any], runs: Sequence[dict[str, Any]], parts: Mapping[str, str]) -> None:
    """Write every run, the rows and the plot, and the tables: training, rounds, and what came out."""
    arms, outcome = effect_rl.by_arm(runs), effect_rl.outcomes(runs, parts)
    seeds = max(len(of) for of in arms.values())
    lines = [
        "# Experience in the prompt, or in the weights",
        "",
        *_machine.as_lines(machine),
        "",
        f"{len(runs)} runs of {settings['steps']} steps of {4 * BATCH} episodes; arms as in benchmarks/internalise.py.",
        effect_rl.power(settings["validation"], seeds),
        "",
        *effect_rl.made_at(runs),
        "",
        *effect_rl.training_table(arms, without=("none", "sibling")),
        "",
        "Tokens: prompts and responses of all steps, and what rounds read and learnt. Other columns as in effect_wordings_rl.md.",
        "",
        *rounds_table(arms),
        "",
        "Means of a run; KL and drift in nats a token, of students that are watched.",
        "",
        *effect_rl.outcome_table(outcome),
        "",
        f"Greedy episodes on {settings['validation']} questions about countries that occur in no training question, paired by question",
        "against the policy trained and played without experience (an arm whose seeds lack that one is not in the table).",
    ]
    effect_rl.keep(name, {"machine": machine, "settings": settings, "outcome": outcome}, lines, runs)


if __name__ == "__main__":
    main()
