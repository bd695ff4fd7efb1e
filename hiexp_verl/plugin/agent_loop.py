"""verl's tool loop, guided at two places: the system prompt at the start, the response of a search call."""

import asyncio
import copy
import json
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from omegaconf import DictConfig, OmegaConf
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, register
from verl.experimental.agent_loop.tool_agent_loop import AgentData, ToolAgentLoop
from verl.experimental.agent_loop.tool_parser import FunctionCall
from verl.tools.schemas import ToolResponse

from hiexp_verl.build.importers.outcome import question_id_of
from hiexp_verl.config import HiExpConfig, parse_config
from hiexp_verl.plugin.retrieval import Retrieval, retrieval_for
from hiexp_verl.plugin.tools import SearchTool
from hiexp_verl.run.control import TRAIN, shows
from hiexp_verl.run.guide import Guide, Place
from hiexp_verl.run.lookup import ExperienceRequest, LookupFailed
from hiexp_verl.run.protocol import answering_text
from hiexp_verl.types import Hit, Message


def settings_of(config: DictConfig) -> HiExpConfig:
    """Return the checked `hiexp:` block of a whole verl config; without a block the plugin is off."""
    block = config.get("hiexp")
    return parse_config(OmegaConf.to_container(block, resolve=True)) if block is not None else HiExpConfig(enabled=False)  # type: ignore[arg-type]


@register("hiexp_agent")
class HiExpAgentLoop(ToolAgentLoop):
    """`ToolAgentLoop` that shows experience; with `hiexp.enabled=false` it is `ToolAgentLoop`. One per trajectory."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settings = settings_of(self.config)
        self.retrieval: Retrieval = retrieval_for(self.settings)
        for tool in self.tools.values():
            if isinstance(tool, SearchTool) and not tool.bound:
                tool.bind(self.settings.search, self.tool_parser_name, self.retrieval)
        self.guide = Guide(self.settings.start, self.settings.step, self._count_tokens)
        self.messages: list[Message] = []  # what the policy saw and wrote, for the dump
        self.shown: list[dict[str, Any]] = []
        self.tool_texts: list[str] = []
        self.queries: list[str] = []
        self.failed_searches = 0
        self.e1_repeats = 0  # E1 found again, and not shown again
        self.lookups = 0
        self.lookup_failures = 0

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """Run one episode (see verl); `extra_fields["hiexp"]` of the output records what was shown."""
        if self.settings.enabled and self.settings.max_tokens_per_turn:
            sampling_params = {**sampling_params, "max_tokens": self.settings.max_tokens_per_turn}
        # The rollouts of a group share these objects: copy before anything is added.
        self.messages = copy.deepcopy(list(kwargs["raw_prompt"]))
        extra_info = kwargs.get("extra_info") or {}
        # Rows of other preprocessors have neither: then by text, as the importers know a question.
        self.question = extra_info.get("question") or _last_user(self.messages)
        self.question_id = str(extra_info.get("question_id") or question_id_of(self.question))
        self.showing_experience = self.settings.enabled and shows(self.settings.control, extra_info.get("split", TRAIN) != TRAIN)
        if self.showing_experience:
            self.messages = await self._guided_start(self.messages)
        output = await super().run(sampling_params, **{**kwargs, "raw_prompt": copy.deepcopy(self.messages)})
        output.extra_fields["hiexp"] = self._record(output, kwargs)
        return output

    async def _guided_start(self, messages: list[Message]) -> list[Message]:
        hits = await self._look_up(self._request("start", self.question))
        guided, shown = self.guide.at_start(messages, hits)
        if shown and self._prompt_tokens(guided) <= self.prompt_length:  # nearly always: a template costs a millisecond or two
            self.shown += shown
            return guided
        room = self.prompt_length - self._prompt_tokens(messages)
        guided, shown = self.guide.at_start(messages, hits, max_tokens=max(0, room))
        while shown and (excess := self._prompt_tokens(guided) - self.prompt_length) > 0:
            # The template may add a token or two around the block, and verl would cut them off the system prompt.
            room -= excess
            guided, shown = self.guide.at_start(messages, hits, max_tokens=max(0, room))
        self.shown += shown
        return guided

    async def _call_tool(
        self, tool_call: FunctionCall, tools_kwargs: dict[str, Any], agent_data: AgentData
    ) -> tuple[ToolResponse, float, dict]:
        looking = self._look_ahead(tool_call)
        response, reward, info = await super()._call_tool(tool_call, tools_kwargs, agent_data)
        if not isinstance(self.tools.get(tool_call.name), (SearchTool, type(None))):
            self.tool_texts.append(response.text or "")
            return response, reward, info  # another tool of the user's: no search, no experience
        failed = info.get("search_failed", 1)  # verl answers a broken call itself, without info
        self.failed_searches += failed
        self.queries.append(info.get("query", ""))
        search = len(self.queries)  # now: parallel calls go on while this one waits
        if looking is not None and failed:
            looking.cancel()
        elif looking is not None:
            # After super(), so that verl's length limit cuts documents, never experience.
            response.text = (response.text or "") + self._lessons(await looking, search)
        self.tool_texts.append(response.text or "")
        return response, reward, info

    def _look_ahead(self, tool_call: FunctionCall) -> "asyncio.Task[list[Hit]] | None":
        """Start to look experience up for a search, which takes about as long and does not wait for it."""
        query = _query_of(tool_call)
        if not self.showing_experience or not query or not isinstance(self.tools.get(tool_call.name), SearchTool):
            return None
        by_then = len(self.shown) + (self.max_parallel_calls - 1) * self.settings.step.top_k  # shown at most
        return asyncio.create_task(self._look_up(self._request("step", query, by_then)))

    def _lessons(self, hits: Sequence[Hit], search: int) -> str:
        seen = {row["entry"] for row in self.shown}
        text, shown, repeats = self.guide.at_search(hits, seen)
        self.shown += [{**row, "search": search} for row in shown]
        self.e1_repeats += repeats
        return text

    async def _look_up(self, request: ExperienceRequest) -> list[Hit]:
        self.lookups += 1
        try:
            return await self.retrieval.experience(request)
        except LookupFailed as error:  # the episode goes on without; the trainer stops a run in which that is the rule
            self.lookup_failures += 1
            error.tell()
            return []

    def _request(self, place: Place, text: str, beyond: int = 0) -> ExperienceRequest:
        own = (self.question_id, self.question) if self.settings.leave_one_out else (None, "")
        return ExperienceRequest(place, text, *own, beyond=beyond)

    def _count_tokens(self, text: str) -> int:
        return _tokens_of(self.tokenizer, text)

    def _prompt_tokens(self, messages: list[Message]) -> int:
        ids = self.tokenizer.apply_chat_template(
            messages, tools=self.tool_schemas or None, add_generation_prompt=True, tokenize=True, return_dict=True
        )
        return len(ids["input_ids"])

    def _record(self, output: AgentLoopOutput, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return what happened, for the reward, the metrics and the dump."""
        turns = self._assistant_turns(output)
        tools = [{"role": "tool", "content": text} for text in self.tool_texts]
        mask = [1, *output.response_mask]
        answered = sum(before > after for before, after in pairwise(mask))  # stretches of tool tokens
        if self.max_parallel_calls == 1:
            # verl ends an episode on a tool response that the budget has no room for: the policy never saw that one.
            tools = tools[:answered]
            self.shown = [row for row in self.shown if row.get("search", 0) <= answered]
        episode = list(self.messages)
        for i, turn in enumerate(turns):
            episode += [{"role": "assistant", "content": turn}, *tools[i : i + 1]]
        return {
            "question_id": self.question_id,
            "question": self.question,
            "sample": int(kwargs.get("session_id", 0)),
            "messages": episode,
            "answer_text": answering_text(turns, self.tool_parser_name),
            "shown": self.shown,
            "queries": self.queries,
            "searches": len(self.queries),
            "failed_searches": self.failed_searches,
            "e1_repeats": self.e1_repeats,
            "lookups": self.lookups,
            "lookup_failures": self.lookup_failures,
        }

    def _assistant_turns(self, output: AgentLoopOutput) -> list[str]:
        """Return the text of each stretch of tokens that the policy wrote (mask 1)."""
        turns: list[list[int]] = []
        previous = 0
        for token, mask in zip(output.response_ids, output.response_mask, strict=True):
            if mask and not previous:
                turns.append([])
            if mask:
                turns[-1].append(token)
            previous = mask
        return [self.tokenizer.decode(turn, skip_special_tokens=True) for turn in turns]


@lru_cache(maxsize=1 << 14)
def _tokens_of(tokenizer: Any, text: str) -> int:
    """Count tokens; the entries of a HEK are shown again and again."""
    return len(tokenizer.encode(text, add_special_tokens=False))


def _query_of(tool_call: FunctionCall) -> str | None:
    """Return what a call searches for, None where it says nothing that can be searched."""
    try:
        arguments = json.loads(tool_call.arguments)
    except (json.JSONDecodeError, TypeError):
        return None
    query = arguments.get("query") if isinstance(arguments, dict) else None
    return query if isinstance(query, str) and query.strip() else None


def _last_user(messages: list[Message]) -> str:
    return next((str(m["content"]) for m in reversed(messages) if m["role"] == "user"), "")
