"""Episodes without a model: verl's agent loop, as verl constructs it, against a server that recites at a fixed rate."""

import asyncio
import resource
import time
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from verl.experimental.agent_loop.agent_loop import DictConfigWrap, ToolListWrap
from verl.tools.tool_registry import load_all_tools
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.workers.rollout.replica import TokenOutput

from benchmarks.retrieval import queries
from hiexp_verl.plugin.agent_loop import HiExpAgentLoop, settings_of
from hiexp_verl.plugin.retrieval import retrieval_for
from hiexp_verl.protocol import first_messages, write_answer, write_call
from hiexp_verl.types import Question

GROUP, SEARCHES = 4, 3
THOUGHT_WORDS = (30, 90)
Script = list[tuple[str, list[str]]]  # the question and the turns of each episode
_WORDS = ("the", "passage", "says", "that", "I", "need", "to", "find", "which", "of", "them", "it", "was", "next", "search", "name")


def compose(*overrides: str) -> Any:
    """Return verl's own config with our flag."""
    with hydra.initialize_config_module("verl.trainer.config", version_base=None):
        name = "actor_rollout_ref.rollout.name=vllm"
        return hydra.compose("ppo_trainer", overrides=["+hiexp=grpo", name, "data.max_response_length=8192", *overrides])


def write_script(episodes: int, questions: list[Question], titles: list[str], seed: int, sharing: int = 1) -> Script:
    """Return what is asked and recited; so many rollouts of a group search for the same, others for nothing that was searched for."""
    draw = np.random.default_rng(seed)
    groups = -(-episodes // GROUP)
    asked = [questions[(seed * groups + number) % len(questions)].question for number in range(groups)]
    searched = iter(queries(episodes * SEARCHES, seed=seed + 60_000))

    def thought() -> str:
        return "<think>" + " ".join(draw.choice(_WORDS, draw.integers(*THOUGHT_WORDS))) + "</think>\n"

    script: Script = []
    for number in range(episodes):
        if number % sharing == 0:
            calls = [write_call(f"{draw.choice(titles)}: {next(searched)}", "hermes") for _ in range(SEARCHES)]
        turns = [*(thought() + call for call in calls), thought() + write_answer("Kabul")]
        script.append((asked[number // GROUP], turns))
    return script


class Reciting:
    """Stands in for verl's client of the inference servers: the next turn of the script, at a fixed rate."""

    def __init__(self, turns: list[list[int]], seconds_per_token: float) -> None:
        self._turns = iter(turns)
        self._seconds_per_token = seconds_per_token

    async def generate(self, request_id: str, **_: Any) -> TokenOutput:
        ids = next(self._turns)
        await asyncio.sleep(self._seconds_per_token * len(ids))
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

    async def play(self, way: str, script: Script, seconds_per_token: float) -> dict[str, Any]:
        """Play all episodes; return seconds and counts."""
        retrieval = retrieval_for(settings_of(self._configs[way]))
        await retrieval.search("loaded?", 1)  # the actor loads what it needs before the first step
        recited = [[self._tokenizer.encode(f"{turn}<|im_end|>", add_special_tokens=False) for turn in turns] for _, turns in script]
        before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        episodes = (self._episode(way, i, question, Reciting(recited[i], seconds_per_token)) for i, (question, _) in enumerate(script))
        outputs = await asyncio.gather(*episodes)
        seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
        records = [output.extra_fields["hiexp"] for output in outputs]
        return {
            "seconds": round(seconds, 3),
            "least_seconds": round(max(sum(map(len, turns)) for turns in recited) * seconds_per_token, 3),  # of the server alone
            "cpu_seconds_of_the_worker": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2),
            "generated_tokens": sum(sum(output.response_mask) for output in outputs),
            "experience_tokens": sum(row["tokens"] for record in records for row in record["shown"]),
            "lessons": sum(row["level"] == "e1" for record in records for row in record["shown"]),
            "searches": sum(record["searches"] for record in records),
            "failed": sum(record["failed_searches"] + record["lookup_failures"] for record in records),
        }

    async def _episode(self, way: str, number: int, question: str, server: Reciting) -> Any:
        config = self._configs[way]
        loop = HiExpAgentLoop(
            trainer_config=DictConfigWrap(config),
            server_manager=server,  # type: ignore[arg-type]
            tokenizer=self._tokenizer,
            processor=None,  # type: ignore[arg-type]
            dataset_cls=RLHFDataset,
            data_config=DictConfigWrap(config.data),
            tools=self._tools[way],
        )
        row = {"raw_prompt": first_messages(question, "hermes"), "extra_info": {"question": question, "split": "train"}}
        return await loop.run({"temperature": 1.0}, **row, session_id=number % GROUP)
