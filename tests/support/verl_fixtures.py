"""What tests of the plugin need: a real verl config, a small real tokenizer, a policy that recites."""

import asyncio
import json
from functools import cache
from pathlib import Path
from typing import Any

SYSTEM = "Answer the question. <search> query </search> searches."
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_tokenizer():
    """Return a byte-level tokenizer with chat tokens, as SmolLM2 and Qwen have them; made here, no download."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>", bos_token="<|im_start|>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


def compose(*overrides: str):
    """Return verl's own config with our flag, as `main_ppo` composes it; hydra takes most of a second, so it does it once per flag.

    Episodes are dumped, so that their text is there.
    """
    from omegaconf import OmegaConf

    flags = tuple(each for each in overrides if each.startswith("+"))
    dumps = ["trainer.rollout_data_dir=dumps", "trainer.validation_data_dir=dumps"]
    return OmegaConf.merge(_composed(flags), OmegaConf.from_dotlist([*dumps, *(each for each in overrides if each not in flags)]))


@cache
def _composed(flags: tuple[str, ...]):
    import hydra
    import verl  # noqa: F401 (brings our entry point)

    with hydra.initialize_config_module("verl.trainer.config", version_base=None):
        return hydra.compose("ppo_trainer", overrides=list(flags))


def write_corpus(path: Path) -> Path:
    """Write three passages."""
    rows = [
        {"id": "1", "title": "Noshak", "text": "Noshak is the highest point of Afghanistan."},
        {"id": "2", "title": "Kabul", "text": "Kabul is the capital of Afghanistan."},
        {"id": "3", "title": "Paris", "text": "Paris is the capital of France. " + "It lies on the Seine. " * 40},
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def write_hek(root: Path, *more: str) -> Path:
    """Write a HEK of one entry per level, encoded by hashing; `more` are descriptions of further E1."""
    from hiexp_verl.hek.schema import Header
    from hiexp_verl.hek.store import HEK
    from hiexp_verl.models.encoder import load_encoder
    from hiexp_verl.types import Entry, Source

    entries = (
        Entry("e1-1", "e1", "highest point of a country", "Search for the mountain first, then for its country.", questions=("train-1",)),
        Entry(
            "e2-1", "e2", "capital of the country whose highest point is ...", "Find the country before its capital.", children=("e1-1",)
        ),
        Entry("e3-1", "e3", "questions in two steps", "Resolve what is described before asking about it.", children=("e2-1",)),
        *(Entry(f"e1-{i}", "e1", "the country of a point", text, questions=("train-2",)) for i, text in enumerate(more, 2)),
    )
    encoder = load_encoder("hash:256")
    header = Header(encoder=encoder.identity, thresholds={"tool_min_score": 0.05}, distiller="rules")
    sources = (Source("train-1#0", "train-1", "Which country has Noshak as its highest point?", "m", "x", False, ("Noshak",)),)
    HEK(header, entries, encoder.encode_passages([e.title for e in entries]), sources).save(root)
    return root


class RecitingServer:
    """Stands in for verl's LLM server client: answers each turn with the next scripted text, or with the ids as they are."""

    def __init__(self, tokenizer: Any, turns: list[str | list[int]]) -> None:
        self.tokenizer, self.turns = tokenizer, list(turns)
        self.prompts: list[list[int]] = []
        self.written: list[list[int]] = []
        self.limits: list[int | None] = []  # tokens that each turn was allowed
        self.seeds: list[int | None] = []
        self.sampling: list[dict[str, Any]] = []

    async def generate(self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any], **_: Any):
        from verl.workers.rollout.replica import TokenOutput

        self.prompts.append(list(prompt_ids))
        self.limits.append(sampling_params.get("max_tokens"))
        self.seeds.append(sampling_params.get("seed"))
        self.sampling.append(dict(sampling_params))
        turn = self.turns[len(self.written)]
        ids = turn if isinstance(turn, list) else self.tokenizer.encode(turn + self.tokenizer.eos_token, add_special_tokens=False)
        self.written.append(ids)
        extra = {"global_steps": 1, "min_global_steps": 1, "max_global_steps": 1}
        return TokenOutput(token_ids=ids, log_probs=self.log_probs(prompt_ids, ids), stop_reason="completed", extra_fields=extra)

    def log_probs(self, prompt_ids: list[int], ids: list[int]) -> list[float]:
        """Return one for each token written."""
        return [-0.5] * len(ids)


def play(agent: Any, **row: Any) -> Any:
    """Run one episode of an agent loop, as verl's worker does."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        agent.loop = loop
        return loop.run_until_complete(agent.run({"temperature": 1.0}, **{"session_id": 0, **row}))
    finally:
        loop.close()


def agent_loop(cls: type, config: Any, server: RecitingServer, tokenizer: Any, model_type: str | None = None):
    """Construct an agent loop as verl's worker does."""
    from verl.experimental.agent_loop.agent_loop import DictConfigWrap, ToolListWrap
    from verl.tools.tool_registry import load_all_tools
    from verl.utils.dataset.rl_dataset import RLHFDataset

    tools = load_all_tools(config.actor_rollout_ref.rollout.multi_turn.tool_config_path, None)
    return cls(
        trainer_config=DictConfigWrap(config),
        server_manager=server,
        tokenizer=tokenizer,
        processor=None,
        dataset_cls=RLHFDataset,
        data_config=DictConfigWrap(config.data),
        tools=ToolListWrap(tools),
        hf_model_type=model_type,
    )
