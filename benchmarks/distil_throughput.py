"""How fast a distiller generates, against vLLM's own offline generation on the same prompts.

Three ways, in one run, in an order that alternates from round to round, so that a busy machine slows all of them alike:

    offline      vllm.LLM(...).chat in a process of its own: the yardstick
    vllm         `hiexp build --distiller vllm:DIR`: our client against the server that it starts
    vllm-local   `hiexp build --distiller vllm-local:DIR`: our worker process

All have the same prompts (E1 prompts of real diagnoses), sampling, JSON schema and engine arguments. Each measurement has
an engine of its own, loaded and warmed up before its clock starts: an idle engine's threads would take part of a small
machine. A measurement in which other processes took more than a twentieth of the machine is kept in the raw file but
not counted, and made again (up to three times as many in all); where none was undisturbed, all count and the table says so.

Usage: python -m benchmarks.distil_throughput --model DIR [--trajectories FILE.jsonl.gz] [--prompts 48] [--rounds 5]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from benchmarks import _machine
from hiexp_verl.assets import default_cache
from hiexp_verl.build.answers import ENTRY_SCHEMA, ModelAnswers, Sampling
from hiexp_verl.build.contrast import Contrast, contrasts
from hiexp_verl.build.diagnose import diagnose
from hiexp_verl.build.distill import concurrency_for
from hiexp_verl.build.importers import read_r1_searcher
from hiexp_verl.build.prompts import reflection_prompt
from hiexp_verl.jsonl import atomic_writer
from hiexp_verl.llm import open_model
from hiexp_verl.types import Message
from hiexp_verl.vllm_engine import engine_arguments, engine_process, tail
from hiexp_verl.vllm_offline import offline_vllm

ROOT = Path(__file__).resolve().parents[1]
Conversations = list[list[Message]]
Run = Callable[[Conversations], tuple[int, float]]  # gives completion tokens, seconds
Way = Callable[[], AbstractContextManager[Run]]
YARDSTICK = "offline"


def main() -> None:
    """Measure, print, write benchmarks/results/distil_throughput.{json,md}."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=default_cache() / "smollm2-135m")
    parser.add_argument("--trajectories", type=Path, help="of the R1-Searcher format; without it, two hand-written episodes")
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=concurrency_for("vllm"))
    parser.add_argument("--yardstick", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.yardstick:
        yardstick_worker(arguments.model)
        return
    machine = _machine.facts()
    prompts = real_prompts(arguments.trajectories, arguments.prompts)
    ways: dict[str, Way] = {
        YARDSTICK: lambda: offline(arguments.model),
        "vllm": lambda: served(arguments.model, arguments.concurrency),
        "vllm-local": lambda: local(arguments.model),
    }
    rows: list[dict[str, Any]] = []
    for number in range(3 * arguments.rounds):
        names = [name for name in ways if sum(row["way"] == name and is_quiet(row) for row in rows) < arguments.rounds]
        start = number % len(ways)
        rows += [measure(name, ways[name], prompts) for name in [*ways][start:] + [*ways][:start] if name in names]
    report(machine, arguments, rows)


def is_quiet(row: dict[str, Any]) -> bool:
    """Whether nobody else used the machine meanwhile."""
    return row["others"] <= 0.05


def busy_seconds() -> tuple[float, float]:
    """Return the processor time that everybody and that our processes have taken so far."""
    everybody = psutil.cpu_times()
    me = psutil.Process()
    ours = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(everybody) - everybody.idle - everybody.iowait, sum(times.user + times.system for times in ours)


def real_prompts(trajectories: Path | None, count: int) -> list[str]:
    """Return E1 prompts, as many as asked for (over again when there are too few diagnoses)."""
    if trajectories is None:
        sys.path.insert(0, str(ROOT))
        from tests.episodes import QUESTION, episode, two_hops

        found = [Contrast("q1", QUESTION, ("Kabul",), (two_hops(number=1),), (episode(answer=a),)) for a in ("Tehran", "")]
    else:
        found, _ = contrasts(list(read_r1_searcher(trajectories)), None, True)
    prompts = [reflection_prompt(diagnosis, 0) for contrast in found for diagnosis in diagnose(contrast, 2)]
    return [prompts[i % len(prompts)] for i in range(count)]


def measure(name: str, way: Way, prompts: list[str]) -> dict[str, Any]:
    """Load one engine and time all prompts."""
    with way() as run:
        run([[{"role": "user", "content": f"Warm up. {prompt}"}] for prompt in prompts[:2]])
        before = busy_seconds()
        tokens, seconds = run([[{"role": "user", "content": prompt}] for prompt in prompts])
        everybody, ours = (after - earlier for after, earlier in zip(busy_seconds(), before, strict=True))
    others = max(0.0, everybody - ours) / (seconds * (os.cpu_count() or 1))
    rate = tokens / seconds
    print(f"{name:10s} {tokens:6d} tokens {seconds:7.2f} s {rate:8.1f} tokens/s, others {others:.0%}", flush=True)
    return {"way": name, "tokens": tokens, "seconds": round(seconds, 3), "tokens_per_s": round(rate, 1), "others": round(others, 3)}


@contextmanager
def served(model: Path, concurrency: int) -> Iterator[Run]:
    """What `vllm:DIR` does."""
    with open_model(str(model), concurrency=concurrency) as client:
        yield answering(client)


@contextmanager
def local(model: Path) -> Iterator[Run]:
    """What `vllm-local:DIR` does."""
    with offline_vllm(model) as loaded:
        yield answering(loaded)


def answering(model: Any) -> Run:
    """Measure the distillers' source of answers."""

    def run(conversations: Conversations) -> tuple[int, float]:
        answers = ModelAnswers(model, "benchmark")
        answers.answer(conversations, 0, "")
        return answers.usage.completion_tokens, answers.usage.seconds

    return run


@contextmanager
def offline(model: Path) -> Iterator[Run]:
    """Start the yardstick in a process with the environment and engine arguments of ours."""
    command = [sys.executable, "-m", "benchmarks.distil_throughput", "--yardstick", "--model", str(model)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    with engine_process(command, **pipes) as (worker, log):

        def run(conversations: Conversations) -> tuple[int, float]:
            worker.stdin.write(json.dumps(conversations) + "\n")
            worker.stdin.flush()
            for line in worker.stdout:
                if line.startswith("RESULT "):  # among what vLLM logs
                    row = json.loads(line.removeprefix("RESULT "))
                    return row["tokens"], row["seconds"]
            raise RuntimeError(f"the yardstick stopped: {tail(log)}")

        yield run


def yardstick_worker(model: Path) -> None:
    """Answer batches with nothing but vLLM's own LLM.chat, timed inside this process."""
    from vllm import LLM, SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    llm = LLM(model=str(model), **engine_arguments(model, 4096))
    for line in sys.stdin:
        conversations = json.loads(line)
        schema = StructuredOutputsParams(json=ENTRY_SCHEMA)
        sampling = SamplingParams(**asdict(Sampling.of(0)), structured_outputs=schema)
        start = time.monotonic()
        outputs = llm.chat(conversations, sampling, use_tqdm=False)
        seconds = time.monotonic() - start
        tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
        print("RESULT " + json.dumps({"tokens": tokens, "seconds": seconds}), flush=True)


def report(machine: dict[str, Any], arguments: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """Write the raw numbers and a table."""
    setting = {"model": arguments.model.name, "prompts": arguments.prompts, "concurrency": arguments.concurrency}
    table: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(row["way"] for row in rows):
        made = [row for row in rows if row["way"] == name]
        rates = [row["tokens_per_s"] for row in made if is_quiet(row)]
        table[name] = {"median": statistics.median(rates or [row["tokens_per_s"] for row in made]), "undisturbed": rates, "made": len(made)}
    for line in table.values():
        line["ratio"] = round(line["median"] / table[YARDSTICK]["median"], 3)
    folder = ROOT / "benchmarks" / "results"
    with atomic_writer(folder / "distil_throughput.json") as file:
        file.write(json.dumps({"machine": machine, "setting": setting, "table": table, "rows": rows}, indent=1) + "\n")
    lines = [
        "# Throughput of the distillers",
        "",
        *_machine.as_lines(machine),
        f"- {setting['prompts']} E1 prompts, {setting['model']}, {setting['concurrency']} requests in flight (vllm)",
        "- start-up of the engines excluded; the order alternates; medians of the undisturbed measurements (of all, where there are none)",
        "",
        "| way | completion tokens/s | ratio to offline | undisturbed measurements, tokens/s | made |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {name} | {line['median']:.0f} | {line['ratio']:.2f} | {', '.join(map(str, line['undisturbed']))} | {line['made']} |"
            for name, line in table.items()
        ),
    ]
    with atomic_writer(folder / "distil_throughput.md") as file:
        file.write("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
