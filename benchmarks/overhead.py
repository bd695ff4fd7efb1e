"""What HiExp adds to the wall time of a rollout: 256 concurrent episodes against a server with fixed latency.

    python -m benchmarks.overhead [--quick]

Each episode is played by `HiExpAgentLoop` as verl constructs it, four turns: three searches and an answer. The server sleeps
20 ms a token and recites, so that the tokens generated are the same with and without HiExp; turns differ in length, as they do.
Without is `hiexp.enabled=false`, verl's own tool agent token for token. Search is BM25 over the factbook, tokenizer and chat
template are Qwen2.5's, the HEK has 2,000 entries and MiniLM, every search shows an E1. Retrieval lives in its Ray actor on the
same cores. 64 questions, 4 rollouts each; no other query is asked twice. With and without take turns within one run; the ratio is
that of the medians. `again` plays the round with HiExp once more, when the actor remembers all vectors: what is left is what HiExp
costs beside its encoder. Writes results/overhead.{json,md}.
"""

import argparse
import asyncio
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import ray
from verl.experimental.agent_loop.agent_loop import DictConfigWrap, ToolListWrap
from verl.tools.tool_registry import load_all_tools
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.workers.rollout.replica import TokenOutput

from benchmarks import _machine
from benchmarks.retrieval import RESULTS, queries, write_inputs
from hiexp_verl.assets import default_cache
from hiexp_verl.encoder import load_encoder
from hiexp_verl.factbook.sets import write_factbook
from hiexp_verl.jsonl import atomic_writer, read_corpus
from hiexp_verl.plugin.agent_loop import HiExpAgentLoop, settings_of
from hiexp_verl.plugin.retrieval import retrieval_for
from hiexp_verl.run.protocol import first_messages, write_answer, write_call

EPISODES, GROUP, SEARCHES = 256, 4, 3
SECONDS_PER_TOKEN = 0.02
THOUGHT_WORDS = (30, 90)
WAYS = ["without", "with", "again"]
CONFIG_OF = {"without": "without", "with": "with", "again": "with"}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="two rounds, for a look and not for the record")
    arguments = parser.parse_args()
    machine = _machine.facts()
    with tempfile.TemporaryDirectory() as folder:
        rounds = measure(Path(folder), 2 if arguments.quick else arguments.rounds)
    report(machine, rounds, write=not arguments.quick)


def measure(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Play all episodes with and without HiExp, in an order that alternates; return what each of them took."""
    cache = default_cache()
    encoder_spec = str(cache / "minilm")
    hek = write_inputs(folder, load_encoder(encoder_spec), encoder_spec).hek
    write_factbook(cache / "factbook", folder / "factbook")
    corpus = folder / "factbook" / "corpus.jsonl"
    titles = [passage.title for passage in read_corpus(corpus)]
    common = (f"hiexp.search.corpus={corpus}", f"hiexp.hek={hek}", f"hiexp.encoder={encoder_spec}", "hiexp.step.min_score=-1.0")
    configs = {"with": compose(*common), "without": compose(*common, "hiexp.enabled=false")}
    root = str(Path(__file__).resolve().parents[1])
    ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False, runtime_env={"env_vars": {"PYTHONPATH": root}})
    worker = ray.remote(Worker).options(num_cpus=1).remote(configs, cache / "qwen-0.5b")
    measured = []
    for number in range(-1, rounds):  # the first warms up
        script = episodes(titles, seed=number + 1)
        for way in WAYS if number % 2 else [*WAYS[1:], WAYS[0]]:
            measured.append({"round": number, "way": way, **ray.get(worker.play.remote(CONFIG_OF[way], script))})
            print(json.dumps(measured[-1]), flush=True)
    ray.shutdown()
    return [row for row in measured if row["round"] >= 0]


def compose(*overrides: str) -> Any:
    """Return verl's own config with our flag."""
    with hydra.initialize_config_module("verl.trainer.config", version_base=None):
        name = "actor_rollout_ref.rollout.name=vllm"
        return hydra.compose("ppo_trainer", overrides=["+hiexp=grpo", name, "data.max_response_length=8192", *overrides])


def episodes(titles: list[str], seed: int) -> list[tuple[str, list[str]]]:
    """Return the question and the turns of each episode."""
    draw = np.random.default_rng(seed)
    asked = queries(EPISODES // GROUP, seed=seed + 50_000)
    searched = iter(queries(EPISODES * SEARCHES, seed=seed + 60_000))

    def thought() -> str:
        return "<think>" + " ".join(draw.choice(_WORDS, draw.integers(*THOUGHT_WORDS))) + "</think>\n"

    def call() -> str:
        return write_call(f"{draw.choice(titles)}: {next(searched)}", "hermes")

    return [
        (asked[number // GROUP], [*(thought() + call() for _ in range(SEARCHES)), thought() + write_answer("Kabul")])
        for number in range(EPISODES)
    ]


_WORDS = (
    "the",
    "passage",
    "says",
    "that",
    "I",
    "need",
    "to",
    "find",
    "which",
    "of",
    "them",
    "it",
    "was",
    "next",
    "search",
    "for",
    "its",
    "name",
)


class Reciting:
    """Stands in for verl's client of the inference servers: the next turn of the script, at a fixed rate."""

    def __init__(self, turns: list[list[int]]) -> None:
        self._turns = iter(turns)

    async def generate(self, request_id: str, **_: Any) -> TokenOutput:
        ids = next(self._turns)
        await asyncio.sleep(SECONDS_PER_TOKEN * len(ids))
        extra = {"global_steps": 1, "min_global_steps": 1, "max_global_steps": 1}
        return TokenOutput(token_ids=ids, log_probs=[-0.5] * len(ids), stop_reason="completed", extra_fields=extra)


class Worker:
    """Stands in for verl's `AgentLoopWorker`: an actor that plays all episodes at a time in one event loop."""

    def __init__(self, configs: dict[str, Any], tokenizer: Path) -> None:
        from transformers import AutoTokenizer

        self._configs = configs
        self._tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        tool_list = configs["with"].actor_rollout_ref.rollout.multi_turn.tool_config_path
        self._tools = {way: ToolListWrap(load_all_tools(tool_list, None)) for way in configs}  # once, as verl's worker does

    async def play(self, way: str, script: list[tuple[str, list[str]]]) -> dict[str, Any]:
        """Play all episodes; return seconds and counts."""
        retrieval = retrieval_for(settings_of(self._configs[way]))
        await retrieval.search("loaded?", 1)  # the actor loads what it needs before the first step
        recited = [[self._tokenizer.encode(f"{turn}<|im_end|>", add_special_tokens=False) for turn in turns] for _, turns in script]
        before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        outputs = await asyncio.gather(*(self._episode(way, i, script[i][0], recited[i]) for i in range(len(script))))
        seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
        records = [output.extra_fields["hiexp"] for output in outputs]
        return {
            "seconds": round(seconds, 3),
            "least_seconds": round(max(sum(map(len, turns)) for turns in recited) * SECONDS_PER_TOKEN, 3),  # of the server alone
            "cpu_seconds_of_the_worker": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2),
            "generated_tokens": sum(sum(output.response_mask) for output in outputs),
            "experience_tokens": sum(row["tokens"] for record in records for row in record["shown"]),
            "searches": sum(record["searches"] for record in records),
            "failed": sum(record["failed_searches"] + record["lookup_failures"] for record in records),
        }

    async def _episode(self, way: str, number: int, question: str, recited: list[list[int]]) -> Any:
        config = self._configs[way]
        loop = HiExpAgentLoop(
            trainer_config=DictConfigWrap(config),
            server_manager=Reciting(recited),  # type: ignore[arg-type]
            tokenizer=self._tokenizer,
            processor=None,  # type: ignore[arg-type]
            dataset_cls=RLHFDataset,
            data_config=DictConfigWrap(config.data),
            tools=self._tools[way],
        )
        row = {"raw_prompt": first_messages(question, "hermes"), "extra_info": {"question": question, "split": "train"}}
        return await loop.run({"temperature": 1.0}, **row, session_id=number % GROUP)


def report(machine: dict[str, Any], rounds: list[dict[str, Any]], write: bool) -> None:
    """Print a table; write it and the raw numbers."""
    of = {way: [row for row in rounds if row["way"] == way] for way in WAYS}
    medians = {way: statistics.median(row["seconds"] for row in rows) for way, rows in of.items()}
    ratio = {way: round(medians[way] / medians["without"], 3) for way in WAYS}
    pairs = {way: sorted(a["seconds"] / b["seconds"] for a, b in zip(of[way], of["without"], strict=True)) for way in WAYS}
    lines = ["# Wall time of a rollout with and without HiExp", "", *_machine.as_lines(machine), ""]
    lines += [f"{EPISODES} episodes at a time, {SECONDS_PER_TOKEN * 1000:g} ms a token, {len(of['with'])} rounds.", ""]
    lines += [
        "| | ratio | single rounds | seconds, median | of all rounds | CPU seconds of the worker | tokens generated | of experience |"
    ]
    lines += ["| --- | ---: | --- | ---: | --- | ---: | ---: | ---: |"]
    for way, rows in of.items():
        every = ", ".join(f"{row['seconds']:.2f}" for row in rows)
        middle = [f"{statistics.median(row[key] for row in rows):g}" for key in _COUNTED]
        spread = f"{pairs[way][0]:.3f} to {pairs[way][-1]:.3f}"
        lines.append(f"| {way} | {ratio[way]:.3f} | {spread} | {medians[way]:.2f} | {every} | {' | '.join(middle)} |")
    lines += ["", "Wanted: at most 1.02 in the row `with`."]
    print("\n".join(lines))
    if write:
        with atomic_writer(RESULTS / "overhead.json") as file:
            file.write(json.dumps({"machine": machine, "ratio": ratio, "rounds": rounds}, indent=1) + "\n")
        with atomic_writer(RESULTS / "overhead.md") as file:
            file.write("\n".join(lines) + "\n")


_COUNTED = ("cpu_seconds_of_the_worker", "generated_tokens", "experience_tokens")


if __name__ == "__main__":
    main()
