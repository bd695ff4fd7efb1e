"""How fast a distiller generates, against one request after another, and against vLLM's own offline generation.

    python -m benchmarks.distil_throughput [--size smoke|bench|long] [--model DIR] [--trajectories FILE.jsonl.gz]

Ways, in one run, in an order that alternates from round to round, so that a busy machine slows all of them alike:

    offline      vllm.LLM(...).chat in a process of its own: the yardstick
    vllm, N      `hiexp build --distiller vllm:DIR`: our client with N requests in flight against the server that it starts;
                 with one in flight it is what a loop over the prompts does
    vllm-local   `hiexp build --distiller vllm-local:DIR`: our worker process

All have the same prompts (E1 prompts of real diagnoses), sampling, JSON schema and engine arguments. Each way has an engine of
its own, loaded and warmed up before its clock starts: an idle engine's threads would take part of a small machine. A measurement
in which other processes took more than a twentieth of the machine is kept in the raw file but not counted, and made again (up to
two or three times as many in all); where none was undisturbed, all count, and claim and table say so.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import _machine
from benchmarks._results import Claim, Panel, Result, command_line, figure, folder_of, publish, table
from hiexp_verl.distil.contrast import contrasts
from hiexp_verl.distil.distillers import concurrency_for
from hiexp_verl.distil.prompts import reflection_prompt
from hiexp_verl.distil.replies import ENTRY_SCHEMA, ModelReplies, sampling_of
from hiexp_verl.domains.diagnosis import Contrast
from hiexp_verl.domains.search import SEARCH
from hiexp_verl.domains.search.diagnose import diagnose
from hiexp_verl.io.files import cache_dir
from hiexp_verl.models.chat import ChatClient, open_model
from hiexp_verl.models.vllm_offline import offline_vllm
from hiexp_verl.models.vllm_process import engine_arguments, engine_process, log_tail
from hiexp_verl.types import Message

ROOT = Path(__file__).resolve().parents[1]
YARDSTICK, LOCAL = "offline", "vllm-local"
Conversations = list[list[Message]]
Run = Callable[[Conversations], tuple[int, float]]  # gives completion tokens, seconds
Row = dict[str, Any]


@dataclass(frozen=True)
class Size:
    prompts: int
    rounds: int
    attempts: int  # rounds at most for each of them, where others use the machine
    in_flight: tuple[int, ...]  # beside what `hiexp build` has


SIZES = {"smoke": Size(2, 1, 1, (1,)), "bench": Size(32, 1, 2, (1, 4, 16)), "long": Size(48, 5, 3, (1, 2, 4, 8, 16, 64))}


def main() -> None:
    """Measure, print, write."""
    parser = command_line(__doc__)
    parser.add_argument("--model", type=Path, default=cache_dir() / "smollm2-135m")
    parser.add_argument("--trajectories", type=Path, help="of the R1-Searcher format; without it, two hand-written episodes")
    parser.add_argument("--prompts", type=int, help="how many, instead of those of the size")
    parser.add_argument("--yardstick", action="store_true", help="the yardstick's process, for this program itself")
    arguments = parser.parse_args()
    if arguments.yardstick:
        yardstick_worker(arguments.model)
        return
    machine, size, model = _machine.facts(), SIZES[arguments.size], arguments.model
    prompts = real_prompts(arguments.trajectories, arguments.prompts or size.prompts)
    engines: dict[str, Callable[[], AbstractContextManager[dict[str, Run]]]] = {
        YARDSTICK: lambda: offline(model),
        "vllm": lambda: served(model, size.in_flight),
        LOCAL: lambda: local(model),
    }
    rows: list[Row] = []
    for number in range(size.attempts * size.rounds):
        names = [*engines][number % 3 :] + [*engines][: number % 3]
        for name in names:
            if min(quiet_rounds(rows, name), default=0) < size.rounds:
                rows += measure(name, engines[name], prompts)
    setting = f"{len(prompts)} E1 prompts, {model.name}; start-up of the engines excluded."
    publish("distil_throughput", machine, result_of(rows, setting), folder_of(arguments))


def served_way(in_flight: int) -> str:
    return f"vllm, {in_flight}"


OURS, SERIAL = served_way(concurrency_for("vllm")), served_way(1)


def quiet_rounds(rows: list[Row], engine: str) -> list[int]:
    """Return how often each way of an engine was measured undisturbed."""
    mine = [row for row in rows if row["engine"] == engine]
    return [sum(row["way"] == way and is_quiet(row) for row in mine) for way in dict.fromkeys(row["way"] for row in mine)]


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
    from tests.support.episodes import QUESTION, episode, two_hops
    from tests.support.r1_searcher import read_r1_searcher

    if trajectories is None:
        found = [Contrast("q1", QUESTION, ("Kabul",), (two_hops(number=1),), (episode(answer=a),)) for a in ("Tehran", "")]
    else:
        found, _ = contrasts(list(read_r1_searcher(trajectories)), single_sided=True)
    prompts = [reflection_prompt(diagnosis, 0, SEARCH) for contrast in found for diagnosis in diagnose(contrast, 2)]
    return [prompts[i % len(prompts)] for i in range(count)]


def measure(engine: str, load: Callable[[], AbstractContextManager[dict[str, Run]]], prompts: list[str]) -> list[Row]:
    """Load one engine and time all prompts in each of its ways."""
    rows = []
    with load() as ways:
        for way, run in ways.items():
            # Each way warms up with prompts, and then reads prompts, that no other had: the engine remembers what it has read.
            run([[{"role": "user", "content": f"Warm up for {way}. {prompt}"}] for prompt in prompts[:2]])
            # Numbered: the distillers ask the same prompt once.
            conversations: Conversations = [[{"role": "user", "content": f"{len(rows)}.{i}. {prompt}"}] for i, prompt in enumerate(prompts)]
            before = busy_seconds()
            tokens, seconds = run(conversations)
            everybody, ours = (after - earlier for after, earlier in zip(busy_seconds(), before, strict=True))
            others = max(0.0, everybody - ours) / (seconds * (os.cpu_count() or 1))
            rate = tokens / seconds
            print(f"{way:10s} {tokens:6d} tokens {seconds:7.2f} s {rate:8.1f} tokens/s, others {others:.0%}", flush=True)
            rows.append({"engine": engine, "way": way, "tokens": tokens, "seconds": seconds, "tokens_per_s": rate, "others": others})
    return rows


@contextmanager
def served(model: Path, in_flight: Sequence[int]) -> Iterator[dict[str, Run]]:
    """What `vllm:DIR` does, and the same with other numbers of requests in flight."""
    with open_model(str(model)) as client:
        numbers = [concurrency_for("vllm"), *in_flight]
        # Few at a time are slow, and their rate needs no more than eight times as many prompts.
        yield {served_way(n): answering(ChatClient(client.base_url, client.model, concurrency=n), 8 * n) for n in numbers}


@contextmanager
def local(model: Path) -> Iterator[dict[str, Run]]:
    """What `vllm-local:DIR` does."""
    with offline_vllm(model) as loaded:
        yield {LOCAL: answering(loaded)}


def answering(model: Any, most: int | None = None) -> Run:
    """Measure the distillers' source of replies, on at most so many prompts."""

    def run(conversations: Conversations) -> tuple[int, float]:
        replies = ModelReplies(model, "benchmark")
        replies.reply(conversations[:most], 0, "")
        return replies.usage.completion_tokens, replies.usage.seconds

    return run


@contextmanager
def offline(model: Path) -> Iterator[dict[str, Run]]:
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
            raise RuntimeError(f"the yardstick stopped: {log_tail(log)}")

        yield {YARDSTICK: run}


def yardstick_worker(model: Path) -> None:
    """Answer batches with nothing but vLLM's own LLM.chat, timed inside this process."""
    from vllm import LLM, SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    llm = LLM(model=str(model), **engine_arguments(model, 4096))
    for line in sys.stdin:
        conversations = json.loads(line)
        schema = StructuredOutputsParams(json=ENTRY_SCHEMA)
        sampling = SamplingParams(**sampling_of(0), structured_outputs=schema)
        start = time.monotonic()
        outputs = llm.chat(conversations, sampling, use_tqdm=False)
        seconds = time.monotonic() - start
        tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
        print("RESULT " + json.dumps({"tokens": tokens, "seconds": seconds}), flush=True)


def result_of(rows: list[Row], setting: str) -> Result:
    """Return claims, and growth over the requests in flight."""
    ways = list(dict.fromkeys(row["way"] for row in rows))
    rates = {way: rate_of(rows, way) for way in ways}

    def claim(ours: str, instead: str, theirs: str, wanted: float | None = None) -> Claim:
        disturbed = not all(any(is_quiet(row) for row in rows if row["way"] == way) for way in (ours, theirs))
        what = f"Distillation, {ours}{' in flight' if ours == OURS else ''}{', beside other work on the machine' if disturbed else ''}"
        return Claim(what, "completion tokens a second", "more", rates[ours], instead, rates[theirs], wanted)

    at_once = ("vLLM's LLM.chat on all", YARDSTICK, 0.9)
    claims = [claim(OURS, "one request after another", SERIAL), claim(OURS, *at_once), claim(LOCAL, *at_once)]
    in_flight = {n: rates[way] for way in ways for n in (int(way.partition(", ")[2] or 0),) if n}
    lines: dict[str, list[tuple[float, float]]] = {"vllm": sorted(in_flight.items())}
    lines |= {way: [(n, rates[way]) for n in sorted(in_flight)] for way in (YARDSTICK, LOCAL)}
    made = [
        [way, figure(rates[way]), figure(rates[way] / rates[YARDSTICK]), len(mine), sum(map(is_quiet, mine)), shares_of(mine)]
        for way in ways
        for mine in ([row for row in rows if row["way"] == way],)
    ]
    head = ["way", "completion tokens/s", "ratio to offline", "measurements", "undisturbed", "others' share of the machine"]
    panels = [Panel("requests in flight", "completion tokens a second", lines)]
    return Result("Throughput of the distillers", claims, panels, {"rows": rows}, [setting, "", *table(head, made, numbers={1, 2, 3, 4})])


def rate_of(rows: list[Row], way: str) -> float:
    """Return the median of the undisturbed measurements, or of all where there are none."""
    mine = [row for row in rows if row["way"] == way]
    return statistics.median(row["tokens_per_s"] for row in [row for row in mine if is_quiet(row)] or mine)


def shares_of(rows: list[Row]) -> str:
    return ", ".join(f"{row['others']:.0%}" for row in rows)


if __name__ == "__main__":
    main()
