"""verl's tool loop, guided at two places: the system prompt at the start, the response of a search call."""

import asyncio
import copy
import json
import logging
from collections.abc import Sequence
from functools import cached_property, lru_cache
from itertools import zip_longest
from typing import Any

from omegaconf import DictConfig, OmegaConf
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, register
from verl.experimental.agent_loop.tool_agent_loop import AgentData, AgentState, ToolAgentLoop
from verl.experimental.agent_loop.tool_parser import FunctionCall
from verl.tools.schemas import ToolResponse

from hiexp_verl.config import Arm, HiExpConfig, Place, parse_config
from hiexp_verl.guide.arms import arm_of, places_of, val_arm_of
from hiexp_verl.guide.guide import Guide, Shown
from hiexp_verl.guide.lookup import ExperienceRequest, LookupFailed
from hiexp_verl.importers.outcome import question_id_of
from hiexp_verl.plugin.retrieval import Retrieval, retrieval_for
from hiexp_verl.plugin.search_tool import SearchTool
from hiexp_verl.plugin.tokens import closing_ids, kept_tokens, missing_ids
from hiexp_verl.protocol import FORMATS, answering_text
from hiexp_verl.rollout.episode import seed_of
from hiexp_verl.text import repeated, sanitise
from hiexp_verl.types import TRAIN, Hit, Message

logger = logging.getLogger(__name__)

MAX_COMPLAINT_CHARS = 200
WRAPPER_TOKENS = 64  # at most: what a chat template puts around a tool response, and a few for the policy to go on


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
        self.guide = Guide(self.settings.prompt, self.settings.tool, self._count_tokens)
        self.messages: list[Message] = []  # what the policy saw and wrote, for the dump
        self.places: tuple[Place, ...] = ()  # where this episode is shown experience
        self.shown = Shown()
        self.lessons: list[tuple[int, str]] = []  # the search, from 1, and the text beside its documents
        self.tool_messages: list[list[Message]] = []  # of each turn that the policy read the answers to
        self.queries: list[str] = []
        self.failed_searches = 0
        self.lookups = 0
        self.lookup_failures = 0

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """Run one episode (see verl); `extra_fields["hiexp"]` of the output records what was shown."""
        if self.settings.enabled and self.settings.max_tokens_per_turn:
            sampling_params = {**sampling_params, "max_tokens": self.settings.max_tokens_per_turn}
        self.step, self.sample = int(kwargs.get("global_steps", 0)), int(kwargs.get("session_id", 0))
        # The rollouts of a group share these objects: copy before anything is added.
        self.messages = copy.deepcopy(list(kwargs["raw_prompt"]))
        extra_info = kwargs.get("extra_info") or {}
        # Rows of other preprocessors have neither: then by text, as the importers know a question.
        self.question = extra_info.get("question") or last_user(self.messages)
        self.question_id = str(extra_info.get("question_id") or question_id_of(self.question))
        self.split = str(extra_info.get("split") or TRAIN)
        self.training = self.split == TRAIN
        # Groups are mixed in training alone.
        self.arm: Arm = arm_of(self.sample, self.settings) if self.training else val_arm_of(self.settings)
        self.places = places_of(self.arm) if self.settings.enabled else ()
        # As verl does it: a row may name the tools that it is for.
        selection = extra_info.get("tool_selection")
        self.schemas = self.tool_schemas
        if selection and self.tools:
            selected = [self.tools[name] for name in selection if name in self.tools]
            self.schemas = [tool.tool_schema.model_dump(exclude_unset=True, exclude_none=True) for tool in selected]
        unguided = self.messages
        if "prompt" in self.places:
            self.messages = await self._guided_prompt(unguided)
        output = await super().run(sampling_params, **{**kwargs, "raw_prompt": copy.deepcopy(self.messages)})
        record = self._record(output)
        if self.training and self.settings.group.strip and self.shown.entries:
            record["stripped"] = self._strip(output, unguided)
        output.extra_fields["hiexp"] = record
        return output

    async def _handle_generating_state(self, agent_data: AgentData, sampling_params: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if self.settings.seed is not None:
            seed = seed_of(self.settings.seed, self.step, self.question_id, self.sample, agent_data.assistant_turns)
            sampling_params = {**sampling_params, "seed": seed}
        return await super()._handle_generating_state(agent_data, sampling_params, *args, **kwargs)

    def _strip(self, output: AgentLoopOutput, unguided: list[Message]) -> bool:
        """Take the experience out of what is trained on; return whether that could be done exactly (else nothing is changed)."""
        logprobs = output.response_logprobs
        blocks = [text for _, text in self.lessons]
        kept = kept_tokens(output.response_ids, output.response_mask, blocks, self.tokenizer)
        if kept is None or getattr(output, "routed_experts", None) is not None:  # these are by position
            logger.warning("experience could not be taken out of an episode token for token: it is trained on as it was sampled")
            return False
        ids, origin = kept
        output.prompt_ids = self._prompt_ids(unguided)
        output.response_mask = [0 if i is None else output.response_mask[i] for i in origin]
        if logprobs is not None:
            output.response_logprobs = [0.0 if i is None else logprobs[i] for i in origin]
        output.response_ids = ids
        return True

    async def _guided_prompt(self, messages: list[Message]) -> list[Message]:
        hits = await self._look_up(self._request("prompt", self.question))
        guided, self.shown = self.guide.at_prompt(messages, hits)
        excess = self._prompt_tokens(guided) - self.prompt_length
        if excess <= 0:  # nearly always: a template costs a millisecond or two
            return guided
        room = self.prompt_length - self._prompt_tokens(messages)
        while self.shown.entries and excess > 0:
            guided, self.shown = self.guide.at_prompt(messages, hits, max_tokens=max(0, room))
            excess = self._prompt_tokens(guided) - self.prompt_length
            room -= excess  # the template may add a token or two around the block, and verl would cut them off the system prompt
        return guided

    async def _handle_processing_tools_state(self, agent_data: AgentData) -> AgentState:
        messages, searches = len(agent_data.messages), len(self.queries)
        written = agent_data.prompt_ids, agent_data.response_mask, agent_data.response_logprobs
        if self.settings.enabled:
            self._close_turn(agent_data)
        state = await super()._handle_processing_tools_state(agent_data)
        if state == AgentState.TERMINATED:  # the budget has no room for the responses: the policy never saw them
            agent_data.prompt_ids, agent_data.response_mask, agent_data.response_logprobs = written
            self.shown = self.shown.up_to(searches)
            self.lessons = [(search, text) for search, text in self.lessons if search <= searches]
        else:
            self.tool_messages.append([{"role": "tool", "content": m["content"]} for m in agent_data.messages[messages:]])
        return state

    def _close_turn(self, agent_data: AgentData) -> None:
        """End the policy's turn as the chat template does, without loss.

        The policy stops at `<|im_end|>`, or before it where its turn was cut. verl 0.9.0 adds the newline that follows; 0.9.1
        adds it for models of the Qwen family alone, though others (SmolLM2) have the same template. Neither completes a turn
        that was cut. Calls of other dialects end in tokens of their own: those are left to verl.
        """
        if self.tool_parser_name not in FORMATS:
            return
        closing = self._closing
        if separator := getattr(self, "turn_separator", []):  # verl 0.9.0
            closing = closing[: -len(separator)]
        missing = missing_ids(agent_data.prompt_ids, closing)
        agent_data.prompt_ids = agent_data.prompt_ids + missing
        agent_data.response_mask = agent_data.response_mask + [0] * len(missing)
        if agent_data.response_logprobs:
            agent_data.response_logprobs = agent_data.response_logprobs + [0.0] * len(missing)

    @cached_property
    def _closing(self) -> list[int]:
        return closing_ids(self.tokenizer, **self.apply_chat_template_kwargs)

    async def _call_tool(
        self, tool_call: FunctionCall, tools_kwargs: dict[str, Any], agent_data: AgentData
    ) -> tuple[ToolResponse, float, dict]:
        tool = self.tools.get(tool_call.name)
        if tool is not None and not isinstance(tool, SearchTool):
            return await super()._call_tool(tool_call, tools_kwargs, agent_data)  # a tool of the user's: no search, no experience
        self.queries.append("")  # now, in the order of the calls: parallel ones come back in any
        search = len(self.queries)
        looking = self._look_ahead(tool_call) if tool is not None and "tool" in self.places else None
        response, reward, info = await super()._call_tool(tool_call, tools_kwargs, agent_data)
        failed = info.get("search_failed", 1)
        if self.settings.enabled and not info:  # verl answers a broken call itself, in words of the call
            response.text = sanitise(response.text or "", MAX_COMPLAINT_CHARS)
        self.failed_searches += failed
        self.queries[search - 1] = info.get("query", "")
        if looking is not None and failed:
            looking.cancel()
        elif looking is not None:
            # After super(), so that verl's length limit cuts documents, never experience.
            documents = response.text or ""
            lessons = self._lessons(await looking, search, self._room_after(documents, agent_data))
            response.text = self.guide.beside(documents, lessons)
        return response, reward, info

    def _look_ahead(self, tool_call: FunctionCall) -> "asyncio.Task[list[Hit]] | None":
        """Start to look experience up for a search, which takes about as long and does not wait for it."""
        query = _query_of(tool_call)
        if query is None:
            return None
        by_then = len(self.shown.entries) + (self.max_parallel_calls - 1) * self.settings.tool.top_k  # shown at most
        return asyncio.create_task(self._look_up(self._request("tool", query, by_then)))

    def _room_after(self, documents: str, agent_data: AgentData) -> int:
        """Return the tokens that experience may take: verl ends the episode on a tool response that does not fit."""
        others = self.max_parallel_calls - 1  # their documents are taken to be as long, and their experience as its budget
        answers = (others + 1) * self._count_tokens(documents) + others * self.settings.tool.max_tokens
        return max(0, self.response_length - len(agent_data.response_mask) - answers - WRAPPER_TOKENS)

    def _lessons(self, hits: Sequence[Hit], search: int, max_tokens: int) -> str:
        text, shown = self.guide.at_tool(hits, self.shown.ids, max_tokens)
        self.shown = self.shown.then(shown, search)
        self.lessons += [(search, text)] if text else []
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
        return ExperienceRequest(place, text, *own, self.arm, beyond)

    def _count_tokens(self, text: str) -> int:
        return _tokens_of(self.tokenizer, text)

    def _prompt_tokens(self, messages: list[Message]) -> int:
        return len(self._prompt_ids(messages))

    def _prompt_ids(self, messages: list[Message]) -> list[int]:
        encoding = self.tokenizer.apply_chat_template(
            messages,
            tools=self.schemas or None,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            **self.apply_chat_template_kwargs,
        )
        return list(encoding["input_ids"])

    def _record(self, output: AgentLoopOutput) -> dict[str, Any]:
        """Return what happened, for the reward, the metrics and the dump."""
        turns = self._assistant_turns(output)
        episode = list(self.messages)
        for turn, answers in zip_longest(turns, self.tool_messages, fillvalue=()):
            episode += [{"role": "assistant", "content": turn}, *answers]
        return {
            "question_id": self.question_id,
            "question": self.question,
            "sample": self.sample,
            "arm": self.arm if self.places else "none",
            "split": self.split,
            "messages": episode,
            "answer_text": answering_text(turns, self.tool_parser_name),
            **self.shown.to_json(),
            "queries": self.queries,
            "repeated_queries": repeated(self.queries),
            "searches": len(self.queries),
            "failed_searches": self.failed_searches,
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


def last_user(messages: list[Message]) -> str:
    """Return what the last user message says, "" where there is none."""
    return next((str(m["content"]) for m in reversed(messages) if m["role"] == "user"), "")
