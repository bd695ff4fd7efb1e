"""Does experience that was distilled into the weights do what experience in the prompt does? Four trainings, each played with and without.

    python -m benchmarks.internalise --name internalise_sweep --seeds 0 --arms none mixed hek hek,clip=0.5 hek,clip=100 hek,top_k=16
    make assets && python -m benchmarks.internalise --seeds 0 1 2
    python -m benchmarks.internalise --seeds 0 --arms hek --add              # one run

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
distilled against context kept. So are they validated while they train: `mixed` with `prompt`, the others without experience.
An arm may change settings of hiexp.distil, and the learning rate of the run, to choose them on one seed; clip=100 cuts nothing, and the
default cuts what experience has to say here (LOG, 2026-11-28). Every run is kept where it is done; an interrupted benchmark goes on.
Writes results/internalise.{json,md,svg} and the rows.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from statistics import fmean
from typing import Any

from omegaconf import OmegaConf

from benchmarks import _machine, effect_rl
from benchmarks._results import same_settings, table
from hiexp_verl.config import SelfDistilConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.evaluate.tables import ALL, BASE, gap_as_text, pairs_of

NAME = "internalise"  # of the results
PLAYED = f"{BASE},prompt,full"
KEPT = "mixed"  # the arm whose experience stays in the prompt: so it is validated
COMPARED = ((BASE, BASE), ("prompt", "prompt"), (BASE, "prompt"))  # as what a run with rounds plays, and as what the same one without
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
DISTIL = {"every": "1", "mini_batch": "1"}  # few students: an update each
CURVES = {  # of a run, by their names in the tables
    **effect_rl.CURVES,
    "round": "hiexp/distil/tokens",
    "seconds": "timing_s/step",
    "answered": "hiexp/answered",
    "pairs": "hiexp/distil/pairs",
    "students": "hiexp/distil/students",
    "updates": "hiexp/distil/updates",
    "stopped": "hiexp/distil/stopped",
    "clipped": "hiexp/distil/clip_fraction",
    "teacher's mass": "hiexp/distil/teacher_mass",
    "drift": "hiexp/distil/drift",
    "held-out KL before": "hiexp/distil/held_out_kl_before",
    "held-out KL after": "hiexp/distil/held_out_kl",
}
SUMS = ("pairs", "students", "updates", "stopped")  # of all rounds of a run
FIGURES = ("answered", "clipped", "teacher's mass", "held-out KL before", "held-out KL after", "drift")


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
    for key, _, value in (change.partition("=") for change in changes):
        if key not in CHANGEABLE or (name not in ROUNDS and key != LR):
            raise argparse.ArgumentTypeError(f"{text}: {key!r} is not to be changed; give KEY=VALUE, of {', '.join(CHANGEABLE)}")
        try:
            _ = float(value) if key == LR else SelfDistilConfig(**{key: OmegaConf.from_dotlist([f"{key}={value}"])[key]})
        except (HiExpError, ValueError) as error:
            raise argparse.ArgumentTypeError(f"{text}: {error}") from error
    return text


def settings_of(arm: str) -> list[str]:
    """Return the settings of a run of this arm, beside those of effect_rl."""
    name, *changes = arm.split(",")
    given = dict(change.split("=", 1) for change in changes)
    experience, *more = effect_rl.TRAINED[ROUNDS.get(name, name)]
    settings = [*BED, f"hiexp.arm={experience}", *more, f"hiexp.val_arm={'prompt' if name == KEPT else BASE}"]
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
    """Return a line for each arm: seconds, tokens and answers of its steps, and what its rounds did."""
    rows = []
    for (_, arm), runs in arms.items():
        points = {name: [value for r in runs for _, value in r["curves"][name]] for name in CURVES}
        cells = [arm, f"{sum(points['seconds']) / len(runs):,.0f}", f"{sum(points['round']) / max(1, sum(points['tokens'])):.2f}"]
        cells += [f"{sum(points[name]) / len(runs):.1f}" if points[name] else "" for name in SUMS]
        rows.append([*cells, *(f"{fmean(points[name]):.4f}" if points[name] else "" for name in FIGURES)])
    return table(["run", "seconds of its steps", "share of tokens in rounds", *SUMS, *FIGURES], rows, numbers=set(range(1, 13)))


def against_kept(runs: Sequence[dict[str, Any]], parts: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return each arm with rounds against the same one without, of the seeds that both have: `COMPARED`, paired by question."""
    of = {(r["trained"], r["seed"]): r for r in runs}
    found = []
    for arm in dict.fromkeys(r["trained"] for r in runs):
        other = ROUNDS.get(arm.partition(",")[0])
        seeds = [seed for trained, seed in of if trained == arm and (other, seed) in of]
        for played, kept in COMPARED if seeds else ():
            sides = {f"{other}, {kept}": (other, kept), f"{arm}, {played}": (arm, played)}
            rows = [
                row | {"dataset": part, "arm": side}
                for side, (trained, as_) in sides.items()
                for seed in seeds
                for row in of[trained, seed]["rows"]
                if row["arm"] == as_
                for part in ("every question", parts[row["id"]])
            ]
            found += [{**pair, "seeds": seeds} for pair in pairs_of(rows) if pair["measure"] == "concise" and pair["dataset"] != ALL]
    return found


def against_table(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return these lines as Markdown."""
    rows = [[pair["dataset"], pair["arm"], pair["against"], len(pair["seeds"]), gap_as_text(pair)] for pair in pairs]
    return table(["questions", "trained, played", "against", "seeds", "right"], rows, numbers=set())


def write(name: str, machine: dict[str, Any], settings: dict[str, Any], runs: Sequence[dict[str, Any]], parts: Mapping[str, str]) -> None:
    """Write every run, the rows and the plot, and the tables: training, rounds, and what came out."""
    arms, outcome, pairs = effect_rl.by_arm(runs), effect_rl.outcomes(runs, parts), against_kept(runs, parts)
    seeds = max(len(of) for of in arms.values())
    lines = [
        "# Experience in the prompt, or in the weights",
        "",
        *_machine.as_lines(machine),
        "",
        f"{len(runs)} runs of {settings['steps']} steps of {4 * BATCH} episodes; arms as in benchmarks/internalise.py.",
        f"The HEK is made of {settings['questions'] * 4} episodes of the",
        f"policy that they start from ({runs[0]['rollout_tokens']:,} tokens), which are in no run's tokens.",
        effect_rl.power(settings["validation"], seeds),
        "",
        *effect_rl.made_at(runs),
        "",
        *effect_rl.training_table(arms, without=("none", "sibling")),
        "",
        "Tokens: prompts and responses of all steps, and what rounds read and learnt. Validation: without experience, but of `mixed` with",
        "`prompt`. Other columns as in effect_wordings_rl.md.",
        "",
        *rounds_table(arms),
        "",
        f"Seconds, pairs, students, updates and stops: of a run, which asks {settings['steps'] * BATCH} questions.",
        "Others: means of its steps and rounds. Pairs: questions with a rollout that can learn, for `sibling` beside a right one;",
        "students: those that do, without the watched. KL (cut by the clip, as it is learnt) and drift: nats a token, of the watched.",
        "",
        *effect_rl.outcome_table(outcome),
        "",
        f"Greedy episodes on {settings['validation']} questions about countries that occur in no training question, paired by question",
        "against the policy trained and played without experience (an arm whose seeds lack that one is not in the table).",
        "After equal steps, not equal tokens: for those see validation, same tokens.",
        "",
        *against_table(pairs),
        "",
        "The same, against the arm without rounds: played alike, and experience in the weights (`none`) against in the prompt.",
    ]
    effect_rl.keep(name, {"machine": machine, "settings": settings, "outcome": outcome, "pairs": pairs}, lines, runs)


if __name__ == "__main__":
    main()
