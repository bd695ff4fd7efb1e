"""Kill -9 a training run on the CPU at random points, and resume it until it is done; compare it with one that was left alone.

    make demo && python -m benchmarks.kill_resume --from outputs/demo --kills 20
    python -m recipes.closed_loop.run && python -m benchmarks.kill_resume --from outputs/closed_loop --loop --kills 20

With --loop a builder proposes versions of the HEK meanwhile, and no run is left alone: sampling on a CPU is not repeatable to the last
bit, and other rollouts give other versions. What is compared is the killed run with what its own rollouts say: each rollout once in
ledger and dump, each version made again from them with the same content hash, each verdict judged again.

Needs the demo's outputs (policy, HEK, questions). Each life is verl's own trainer with real vLLM; a kill takes the driver and
every process it started, at a moment drawn between its start and some steps later: imports, weights being loaded, rollouts,
updates, checkpoints. Writes benchmarks/results/kill_resume.{json,md}. An undisturbed run that is there is not done again.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks._machine import as_lines, facts
from benchmarks._results import RESULTS, loop_events
from hiexp_verl.config import GateConfig, LoopConfig
from hiexp_verl.evolve.background import Task, make_candidate
from hiexp_verl.guide.record import EpisodeRecord
from hiexp_verl.hek.store import HEK
from hiexp_verl.hek.versions import versions
from hiexp_verl.io.datasets import read_trajectories
from hiexp_verl.ledger.gate import judge
from hiexp_verl.ledger.rows import LEDGER, read_run
from hiexp_verl.plugin.launch import trainer_command
from hiexp_verl.rollout.policy import MARKER

RECIPES = Path(__file__).parents[1] / "recipes"
MARK = "HIEXP_KILL_RESUME"  # in the environment of every process of a run, however it was started
REWARD = "hiexp/reward_mean"
# A proposal every other step, which has a step to be made; a test of at most two.
LOOP_CONFIG = LoopConfig(enabled=True, every=2, lag=1, max_steps=2, plan_support=1, gate=GateConfig(rule="strict", min_groups=2))
LOOP = ("hiexp.loop.every=2", "hiexp.loop.lag=1", "hiexp.loop.max_steps=2", "hiexp.loop.gate.min_groups=2")


class Run:
    """One training run in a folder of its own."""

    def __init__(self, demo: Path, folder: Path, steps: int, loop: bool = False) -> None:
        self.folder, self.steps = folder, steps
        assets, recipe = demo / "assets", RECIPES / ("closed_loop" if loop else "cpu_demo")
        self.hek = demo / "build" / "hek"
        folder.mkdir(parents=True, exist_ok=True)
        if loop:
            self.hek = folder / "hek"  # its own: versions are written into it
            if not self.hek.is_dir():
                shutil.copytree(demo / "hek" / "hek", self.hek, ignore=shutil.ignore_patterns(LEDGER))
        checkpoint = "actor_rollout_ref.actor.checkpoint"
        overrides = [
            *("--config-dir", str(recipe), "--config-name", "loop" if loop else "grpo", f"hydra.run.dir={folder / 'hydra'}"),
            f"hiexp.hek={self.hek}",
            f"hiexp.search.corpus={assets / 'lay_words' / 'corpus.jsonl'}",
            f"hiexp.dump_dir={folder / 'episodes'}",
            "hiexp.seed=7",
            "hiexp.max_tokens_per_turn=48",
            f"data.train_files={assets / ('rollouts.jsonl' if loop else 'train.jsonl')}",
            f"data.val_files={assets / 'val.jsonl'}",
            "data.train_batch_size=2",
            f"actor_rollout_ref.model.path={demo / 'warm_start' / 'model'}",
            f"actor_rollout_ref.rollout.n={4 if loop else 2}",
            "actor_rollout_ref.actor.ppo_mini_batch_size=2",
            f"{checkpoint}.save_contents=[model,optimizer,extra]",
            f"trainer.total_training_steps={steps}",
            "trainer.save_freq=1",
            "trainer.max_actor_ckpt_to_keep=2",
            f"trainer.default_local_dir={folder / 'checkpoints'}",
            *(LOOP if loop else ()),
        ]
        self._command, self._environment = trainer_command(overrides, cpu=True)

    def live(self, die: Callable[[float], bool] = lambda seconds: False, *overrides: str) -> int | None:
        """Run until it ends (return its code), or is killed because `die(seconds since its start)` says so (return None)."""
        mark = uuid.uuid4().hex
        with (self.folder / "log.txt").open("a", encoding="utf-8") as log:
            command, environment = (
                [*self._command, *overrides],
                {**self._environment, MARK: mark, "VERL_FILE_LOGGER_PATH": str(self.folder / f"metrics-{time.time_ns()}.jsonl")},
            )
            driver = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
            started = time.monotonic()
            try:
                while (code := driver.poll()) is None and not die(time.monotonic() - started):
                    time.sleep(0.1)
                return code
            finally:
                for _ in range(3):  # one may be starting another
                    for pid in _marked(mark):
                        _kill(pid)
                    time.sleep(0.3)
                driver.wait()

    def log_end(self) -> str:
        """The last lines of the log."""
        return (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace")[-4000:]

    @property
    def saved(self) -> int:
        """The step that verl would resume from."""
        marker = self.folder / "checkpoints" / MARKER
        return int(marker.read_text() or -1) if marker.is_file() else 0

    def metrics(self) -> dict[int, dict[str, float]]:
        """Return each step's metrics, of the life that came last where a step was repeated."""
        paths = sorted(self.folder.glob("metrics-*.jsonl"))  # one a life: verl's logger empties the file that it opens
        lines = [line for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
        rows = [json.loads(line) for line in lines if line.endswith("}}")]
        return {row["step"]: row["data"] for row in rows if REWARD in row["data"]}

    def episodes(self) -> dict[int, list[dict[str, Any]]]:
        """Return each step's episodes, in the order of question and sample."""
        found = {}
        for path in sorted((self.folder / "episodes").glob("*.jsonl")):
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            found[int(path.stem)] = sorted(rows, key=lambda row: row["id"])
        return found


def inconsistencies(run: Run, config: LoopConfig) -> list[str]:
    """Return what a run with the loop did otherwise than its own rollouts say; nothing where it did all as they say."""
    torch.set_num_threads(1)  # as the builder: with more, the encoder's vectors differ by 1e-7, and so the content hash
    faults = _miscounted(run)
    ledger = next((run.hek / LEDGER).glob("*.jsonl"))
    rows, present = read_run(ledger), [version.name for version in versions(run.hek)]
    incumbent, rejected, changed, only_removes, tested_from = run.hek / present[0], (), (), False, 0
    for event in loop_events(run.folder):
        step, version = event["step"], run.hek / event.get("version", "")
        if event["event"] == "proposed":
            changed, only_removes = (*event["came"], *event["went"]), not event["came"]
            tested_from, until = step, step - config.lag - 1
            episodes = [str(path) for path in sorted((run.folder / "episodes").glob("*.jsonl")) if int(path.stem) <= until]
            made = make_candidate(Task(str(incumbent), None, tuple(episodes), str(ledger), until, config, rejected))
            if Path(made.path).name != version.name:
                faults.append(f"step {step}: {version.name} was proposed, its rollouts give {Path(made.path).name or made.why}")
        elif "verdict" in event:
            seen = [row for row in rows if tested_from <= row.step <= step]
            hashes = [HEK.load(each).header.content_hash for each in (incumbent, version)]
            verdict = judge(seen, *hashes, config.gate, only_removes=only_removes, last=step - tested_from + 1 >= config.max_steps)
            if verdict.to_json() != event["verdict"]:
                faults.append(f"step {step}: the ledger says {verdict.to_json()}, noted is {event['verdict']}")
            if event["event"] == "accept":
                incumbent, kept = version, {entry.content_id for entry in HEK.load(version).entries}
                rejected = tuple(each for each in rejected if each not in kept)
            else:
                rejected = tuple(dict.fromkeys((*rejected, *changed)))
    if more := [version.name for version in versions(run.hek) if version.name not in present]:
        faults.append(f"the rollouts give versions that the run has not: {', '.join(more)}")
    return faults


def _miscounted(run: Run) -> list[str]:
    """Return the steps whose rollouts are not once each in the ledger and in the dump."""
    path = next((run.hek / LEDGER).glob("*.jsonl"))
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    faults = []
    for step in range(1, run.steps + 1):
        counted = sorted((row["group"].partition("~")[0], row["session"], round(row["reward"], 3)) for row in lines if row["step"] == step)
        dump = read_trajectories(run.folder / "episodes" / f"{step:06d}.jsonl")
        dumped = sorted((t.question_id, EpisodeRecord.of(t).sample, round(t.score, 3)) for t in dump)
        if counted != dumped:
            faults.append(f"step {step}: the ledger has {counted}, the dump {dumped}")
    return faults


def _marked(mark: str) -> list[int]:
    """Return the processes whose environment has the mark, wherever Ray put them in the process tree."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if wanted in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue  # it ended meanwhile
    return found


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def compare(alone: Run, killed: Run) -> list[dict[str, Any]]:
    """Return for each step how far the killed run equals the one left alone."""
    table = []
    metrics, episodes = (alone.metrics(), killed.metrics()), (alone.episodes(), killed.episodes())
    for step in range(1, alone.steps + 1):
        one, other = episodes[0].get(step, []), episodes[1].get(step, [])
        table.append(
            {
                "step": step,
                "reward": [m[step][REWARD] if step in m else None for m in metrics],
                "gradient": [m[step]["actor/grad_norm"] if step in m else None for m in metrics],
                "episodes": len(one),
                "same_questions": [r["id"] for r in one] == [r["id"] for r in other],
                "same_prompt_entries": sum(_shown(a, "prompt") == _shown(b, "prompt") for a, b in zip(one, other, strict=False)),
                "same_tool_entries": sum(_shown(a, "tool") == _shown(b, "tool") for a, b in zip(one, other, strict=False)),
                "same_text": sum(a["messages"] == b["messages"] for a, b in zip(one, other, strict=False)),
            }
        )
    return table


def _shown(episode: dict[str, Any], place: str) -> list[tuple[str, float]]:
    return [(row["entry"], row["score"]) for row in episode["extra"]["shown"] if row["place"] == place]


def main() -> None:
    """Train once undisturbed, once with kills; write the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="demo", type=Path, default=Path("outputs/demo"), help="the demo's outputs (default outputs/demo)")
    parser.add_argument("--out", type=Path, default=Path("outputs/kill_resume"), help="where both runs go (default outputs/kill_resume)")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--longest", type=float, default=150.0, help="seconds that a life may last (default 150: a step or two on 2 cores)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--loop", action="store_true", help="with the loop, from the outputs of recipes.closed_loop; see above")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped with it
    machine, draw = facts(), random.Random(arguments.seed)
    demo, out, name = arguments.demo.resolve(), arguments.out.resolve(), "kill_resume_loop" if arguments.loop else "kill_resume"
    alone = None if arguments.loop else left_alone(Run(demo, out / "alone", arguments.steps))
    shutil.rmtree(out / "killed", ignore_errors=True)
    killed = Run(demo, out / "killed", arguments.steps, arguments.loop)
    lives = killed_lives(killed, arguments, draw)
    result = {"machine": machine, "steps": arguments.steps, "lives": lives}
    result |= {"rows": compare(alone, killed)} if alone is not None else of_loop(killed)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.md").write_text(_markdown(result), encoding="utf-8")
    print(_markdown(result))


def left_alone(run: Run) -> Run:
    """Return the run, once it is done without a kill."""
    if run.saved < run.steps and run.live() != 0:
        raise SystemExit(f"the run left alone failed; see {run.folder / 'log.txt'}")
    print(f"left alone: {run.saved} steps", flush=True)
    return run


def of_loop(run: Run) -> dict[str, Any]:
    """Return what the loop of a run did, and where that is not what its rollouts say."""
    return {
        "events": loop_events(run.folder),
        "versions": [version.content_hash for version in versions(run.hek)],
        "faults": inconsistencies(run, LOOP_CONFIG),
    }


def killed_lives(killed: Run, arguments: argparse.Namespace, draw: random.Random) -> list[dict[str, Any]]:
    """Kill and resume the run until it is done; return its lives."""
    lives: list[dict[str, Any]] = []
    while True:
        disturbed = len(lives) < arguments.kills
        # A life that may not do another step, or the run would be over before the last kill, is killed before it can.
        latest = arguments.longest if killed.saved < arguments.steps - 1 else arguments.longest / 2
        seconds = draw.uniform(0.1 * arguments.longest, latest) if disturbed else None
        before = killed.saved
        code = killed.live((lambda passed, at=seconds: passed > at) if seconds is not None else lambda passed: False)
        lives.append({"seconds": seconds, "code": code, "from": before, "to": killed.saved})
        print(json.dumps(lives[-1]), flush=True)
        if code:
            raise SystemExit(f"a life failed by itself with code {code}; see {killed.folder / 'log.txt'}")
        if code == 0:
            return lives


def _markdown(result: dict[str, Any]) -> str:
    lives = result["lives"]
    kills = [life for life in lives if life["code"] is None]
    lines = ["# Killed and resumed", "", *as_lines(result["machine"]), ""]
    lines += [f"{result['steps']} steps of GRPO on the CPU; {len(kills)} times kill -9, the last life ended with code {lives[-1]['code']}."]
    lines += _of_rows(result["rows"]) if "rows" in result else _of_events(result)
    lines += ["", "| life | killed after s | from step | saved step |", "| ---: | ---: | ---: | ---: |"]
    for number, life in enumerate(lives, 1):
        after = "ended" if life["seconds"] is None or life["code"] is not None else f"{life['seconds']:.0f}"
        lines.append(f"| {number} | {after} | {life['from']} | {life['to']} |")
    return "\n".join([*lines, ""])


def _of_events(result: dict[str, Any]) -> list[str]:
    events = [f"| {each['step']} | {each['event']} | {each.get('version', '')} |" for each in result["events"]]
    faults = result["faults"] or ["Each rollout is once in ledger and dump; versions and verdicts, made again from them, are the same."]
    return [*faults, "", "| step | event | version |", "| ---: | --- | --- |", *events]


def _of_rows(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        "Each column holds the run left alone beside the killed one, or how many of its episodes they share.",
        "",
        "| step | reward | gradient norm | same questions | same E2/E3 | same E1 | same text |",
        "| ---: | --- | --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        pairs = " | ".join(" / ".join("-" if v is None else f"{v:.4f}" for v in r[key]) for key in ("reward", "gradient"))
        shares = " | ".join(f"{r[key]} of {r['episodes']}" for key in ("same_prompt_entries", "same_tool_entries", "same_text"))
        lines.append(f"| {r['step']} | {pairs} | {'yes' if r['same_questions'] else 'no'} | {shares} |")
    return lines


if __name__ == "__main__":
    main()
