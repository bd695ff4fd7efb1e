"""The loop on a CPU: training begins with a HEK of wrong plans; the loop proposes others, tests them, and publishes what is better.

The result of each finished stage is kept in outputs/closed_loop/run.json; a second run reuses it.
"""

import argparse
import json
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hiexp_verl.hek.opening import remember_encoder
from hiexp_verl.hek.schema import Header
from hiexp_verl.hek.store import HEK
from hiexp_verl.io.datasets import read_questions
from hiexp_verl.io.manifest import timed
from hiexp_verl.masking import kind_of
from hiexp_verl.models.encoder import load_encoder
from hiexp_verl.report import write_report
from hiexp_verl.rollout.policy import EVENTS
from hiexp_verl.types import FOUND, GIVEN, Entry, Plan, Question
from recipes.cpu_demo.run import exit_code, one_stage, prepare
from recipes.cpu_demo.stages import Demo, DemoSpec
from recipes.cpu_demo.training import read_metrics, train
from recipes.demo_data.factbook.lay_words import HELD_OUT, KEYS

HERE = Path(__file__).parent
LOOP = ("hiexp/gap/reward", "hiexp/loop/version", "hiexp/loop/groups", "hiexp/loop/gain", "hiexp/loop/gain_error")


def main() -> int:
    """Run the stages; 0 when the gate decided on a candidate."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/closed_loop"), help="results and report (default outputs/closed_loop)")
    parser.add_argument("--steps", type=int, default=6, help="training steps (default 6)")
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier run did")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of verl, such as data.train_batch_size=4")
    a = parser.parse_args()
    return exit_code("closed_loop", lambda: run(a.out, a.steps, a.overrides, a.fresh))


def run(out: Path, steps: int, overrides: list[str], fresh: bool) -> int:
    """Run every stage in order, then say what the loop decided."""
    manifest = prepare(out, {"steps": str(steps), "overrides": " ".join(overrides)}, fresh)
    demo = Demo(DemoSpec(out))

    def wrong_hek(folder: Path) -> dict[str, Any]:
        questions = read_questions(demo.out / "assets" / "rollouts.jsonl")
        return {"hek": str(write_wrong(questions, demo.results["assets"]["paths"]["minilm"], folder / "hek"))}

    def training(folder: Path) -> dict[str, Any]:
        results, files = demo.results, demo.out / "assets"
        given = [
            f"hiexp.hek={results['hek']['hek']}",
            f"hiexp.search.corpus={results['assets']['corpus']}",
            f"hiexp.dump_dir={folder / 'episodes'}",
            f"data.train_files={files / 'rollouts.jsonl'}",
            f"data.val_files={files / 'val.jsonl'}",
            f"actor_rollout_ref.model.path={results['warm_start']['model']}",
            f"trainer.total_training_steps={steps}",
            f"trainer.default_local_dir={folder / 'checkpoints'}",
        ]
        found = train(HERE, "loop", [*given, *overrides], folder, steps)
        for row in read_metrics(folder / "metrics.jsonl"):
            print(f"   step {row['step']}: " + ", ".join(f"{key.removeprefix('hiexp/')} {row[key]:.3f}" for key in LOOP if key in row))
        return {**found, "events": [json.loads(line) for line in (folder / "checkpoints" / EVENTS).read_text().splitlines()]}

    stages = [
        *(stage for stage in demo.stages() if stage[0] in ("assets", "warm_start")),
        ("hek", "a wrong plan for every kind of question", wrong_hek),
        ("training", f"{steps} steps of GRPO with the loop: half of the rollouts without experience", training),
    ]
    with timed(out, manifest):
        for name, what, stage in stages:
            demo.results[name] = one_stage(out, name, what, stage, manifest)
    manifest.finish(out)
    write_report([out], out / "report.html", "The loop on a CPU")
    return print_events(demo.results["training"]["events"], demo.results["hek"]["hek"], out / "report.html")


def write_wrong(questions: Iterable[Question], encoder: str, folder: Path) -> Path:
    """Write a HEK in which every kind of these questions has the plan of another goal; its tallies say that it was right once in ten."""
    families = {kind_of(q.question): q.meta["family"].split(" > ") for q in questions}
    goals, entries = list(dict.fromkeys(family[-1] for family in families.values())), []
    for number, (kind, family) in enumerate(families.items()):
        other = HELD_OUT[goals[(goals.index(family[-1]) + 1) % len(goals)]]
        plan = Plan(kind, (KEYS[family[0]].searches[0].format(GIVEN), other.searches[0].format(FOUND)))
        made = {"plans": (plan,), "counters": {"right": 1, "wrong": 9}}
        entries.append(Entry(f"e2-{number + 1:04d}", "e2", kind, plan.sentence, **made))
    loaded = load_encoder(encoder)
    vectors_E_D = loaded.encode_passages([entry.title for entry in entries])
    HEK(Header(loaded.identity, distiller="wrong on purpose"), tuple(entries), vectors_E_D).save(folder)
    remember_encoder(folder, encoder)
    print("\n".join(f"   {entry.description}" for entry in entries))
    return folder


def print_events(events: list[dict[str, Any]], hek: str, report: Path) -> int:
    """Print what the loop did; return 0 when the gate decided on a candidate: "no difference" after the last look is a decision, too."""
    print("\n== what the loop did")
    for event in events:
        verdict = event.get("verdict") or {}
        numbers = f"gain {verdict['difference']:+.3f}, standard error {verdict['error']:.3f}, {verdict['look']} groups" if verdict else ""
        print(f"   step {event['step']}: {event['event']} {Path(event.get('version', '')).name} {numbers or event.get('why', '')}")
    print(f"   hiexp ledger {hek}; report: {report}")
    return 0 if any("verdict" in event for event in events) else 1


if __name__ == "__main__":
    sys.exit(main())
