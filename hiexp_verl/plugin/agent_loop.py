"""verl's tool agent loop with experience at two places: the system prompt and the responses of the search tool."""

import copy
import logging
from dataclasses import replace
from functools import cached_property, lru_cache
from itertools import groupby, zip_longest
from typing import Any

from omegaconf import DictConfig, OmegaConf
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, register
from verl.experimental.agent_loop.tool_agent_loop import AgentData, AgentState, ToolAgentLoop
from verl.experimental.agent_loop.tool_parser import FunctionCall
from verl.tools.schemas import ToolResponse

from hiexp_verl.config import Arm, Budgets, HiExpConfig, parse_config
from hiexp_verl.domains import domain_named
from hiexp_verl.guide.arms import arm_of, plays_candidate
from hiexp_verl.guide.episode import AsyncGuidedEpisode, Guidance
from hiexp_verl.guide.lookup import ExperienceRequest
from hiexp_verl.guide.mask import Mask
from hiexp_verl.guide.record import EpisodeRecord
from hiexp_verl.io.questions import asked_in
from hiexp_verl.models.tokenizer import prompt_ids
from hiexp_verl.plugin.loop import STAMP, Version, Versions
from hiexp_verl.plugin.retrieval import Retrieval, retrieval_for
from hiexp_verl.plugin.search_tool import SearchTool
from hiexp_verl.plugin.tokens import closing_ids, kept_tokens, missing_ids
from hiexp_verl.plugin.turns import state_of
from hiexp_verl.protocol import FORMATS, SEARCH_CLOSE, query_in
from hiexp_verl.rollout.episode import seed_of
from hiexp_verl.text import sanitise
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
        self.domain = domain_named(self.settings.domain)
        if self.domain.tool is None:
            self.tools, self.tool_schemas, self.max_assistant_turns = {}, [], 1
        self.retrieval: Retrieval = retrieval_for(self.settings)
        for tool in self.tools.values():
            if isinstance(tool, SearchTool) and tool.retrieval is None:
                tool.bind(self.settings.search, self.tool_parser_name, self.retrieval)
        self.episode: AsyncGuidedEpisode  # made by `run`
        self.messages: list[Message] = []  # what the policy read and wrote, for the dump
        self.tool_messages: list[list[Message]] = []  # of each turn whose responses the policy read
        self.states: list[str] = []  # of these turns, see `plugin.turns`
        self.passages: dict[int, list[str] | None] = {}  # ids of what a search found, by its number

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """Run one episode (see verl); `extra_fields["hiexp"]` of the output is its record."""
        if self.settings.enabled and self.settings.max_tokens_per_turn:
            sampling_params = {**sampling_params, "max_tokens": self.settings.max_tokens_per_turn}
        self.step, self.sample = int(kwargs.get("global_steps", 0)), int(kwargs.get("session_id", 0))
        # The rollouts of a group share these objects: copy before anything is added.
        self.messages = copy.deepcopy(list(kwargs["raw_prompt"]))
        extra_info = kwargs.get("extra_info") or {}
        question_id, question = asked_in({**kwargs, "prompt": self.messages})
        self.split = str(extra_info.get("split") or TRAIN)
        self.training = self.split == TRAIN
        self.version = self._version(kwargs.get(STAMP), question_id)
        self.episode = AsyncGuidedEpisode(self._guidance(), self._experience, question, question_id, self.sample)
        # A row may select its tools, as in verl.
        selection = extra_info.get("tool_selection")
        self.schemas = self.tool_schemas
        if selection and self.tools:
            selected = [self.tools[name] for name in selection if name in self.tools]
            self.schemas = [tool.tool_schema.model_dump(exclude_unset=True, exclude_none=True) for tool in selected]
        unguided = self.messages
        self.messages = await self.episode.system(unguided, self._excess)
        output = await super().run(sampling_params, **{**kwargs, "raw_prompt": copy.deepcopy(self.messages)})
        record = self._record(output)
        if self.training and self.settings.group.strip and self.episode.shown:
            record = replace(record, stripped=self._strip(output, unguided))
        output.extra_fields["hiexp"] = record.to_json()
        return output

    def _guidance(self) -> Guidance:
        # Groups are mixed in training alone.
        settings = self.settings
        arm: Arm = arm_of(self.sample, settings) if self.training else settings.val_arm or settings.arm
        if not settings.enabled:
            return Guidance(arm="none", count_tokens=self._count_tokens, domain=self.domain)
        budgets, ledger = Budgets(settings.prompt, settings.tool), settings.ledger
        mask = Mask(ledger.mask, f"{settings.seed or 0}/{self.step}") if self.training and ledger.enabled else None
        hek = self.version.content_hash if self.version is not None else settings.hek_hash
        draw = f"{settings.seed or 0}/{self.step}" if self.training else ""
        return Guidance(budgets, arm, settings.leave_one_out, self._count_tokens, mask, draw, hek, self.domain)

    def _version(self, stamp: str | None, question_id: str | None) -> Version | None:
        """Return the version of the HEK that this episode is shown, None: the one of the settings."""
        versions = Versions.of(stamp)
        if versions is None or versions.candidate is None or not self.training:
            return versions.incumbent if versions is not None else None
        candidate = plays_candidate(self.sample, f"{self.step}/{question_id}", self.settings)
        return versions.candidate if candidate else versions.incumbent

    async def _experience(self, request: ExperienceRequest) -> list[Hit]:
        return await self.retrieval.experience(replace(request, version=self.version) if self.version is not None else request)

    async def _handle_generating_state(self, agent_data: AgentData, sampling_params: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if self.settings.seed is not None:
            seed = seed_of(self.settings.seed, self.step, self.episode.question_id or "", self.sample, agent_data.assistant_turns)
            sampling_params = {**sampling_params, "sampling_seed" if self._is_sglang else "seed": seed}
        stop = [SEARCH_CLOSE] if self.settings.stop_at_search and self.tool_parser_name == "search_tags" else []
        if self.domain.tool is None:
            stop, sampling_params = self.episode.stops.stop, self._limited(sampling_params, sum(agent_data.response_mask))
        if stop:
            kept = {"no_stop_trim": True} if self._is_sglang else {"include_stop_str_in_output": True}
            sampling_params = {**sampling_params, "stop": stop, **kept}
        state = await super()._handle_generating_state(agent_data, sampling_params, *args, **kwargs)
        if self.episode.stops.left and await self._goes_on(agent_data, sampling_params.get("max_tokens")):
            return AgentState.GENERATING
        return state

    def _limited(self, sampling_params: dict[str, Any], written: int) -> dict[str, Any]:
        """Return the parameters of a request of a derivation of which so many tokens are written."""
        most = sampling_params.get("max_tokens")
        limits = [limit for limit in (self.episode.stops.limit, most and max(1, most - written)) if limit]
        return {**sampling_params, "max_tokens": min(limits)} if limits else sampling_params

    async def _goes_on(self, agent_data: AgentData, limit: int | None) -> bool:
        """Return whether the policy goes on with its derivation, after experience between two steps where some is found."""
        mask, ids = agent_data.response_mask, agent_data.response_ids
        is_cut = len(ids) == limit and self._text_of(ids[-1:]) != ""  # what ends a turn is a special token
        step = self.episode.stops.read(self.tokenizer.decode(ids, skip_special_tokens=False), is_cut)
        room, most = self.response_length - len(mask), self.settings.max_tokens_per_turn
        if step is None or room < 1 or (most is not None and sum(mask) >= most):
            return False
        if self.domain.answer_in(self.domain.answering_text([self._text_of(agent_data.prompt_ids[-len(mask) :])])) is not None:
            self.episode.stops.end()
        elif step:
            block = await self.episode.step(step, max(0, room - WRAPPER_TOKENS))
            _append(agent_data, self.tokenizer.encode(block, add_special_tokens=False))
        return True

    def _text_of(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    @property
    def _is_sglang(self) -> bool:
        return self.config.actor_rollout_ref.rollout.name == "sglang"

    def _strip(self, output: AgentLoopOutput, unguided: list[Message]) -> bool:
        """Remove the experience from the tokens that are trained; return whether that is exact (else nothing is changed)."""
        logprobs = output.response_logprobs
        blocks = [text for _, text in self.episode.blocks]
        kept = kept_tokens(output.response_ids, output.response_mask, blocks, self.tokenizer)
        if kept is None or getattr(output, "routed_experts", None) is not None:  # these are by position
            logger.warning("experience cannot be removed exactly from the tokens of an episode: it is trained as it was sampled")
            return False
        ids, origin = kept
        output.prompt_ids = self._prompt_ids(unguided)
        output.response_mask = [0 if i is None else output.response_mask[i] for i in origin]
        if logprobs is not None:
            output.response_logprobs = [0.0 if i is None else logprobs[i] for i in origin]
        output.response_ids = ids
        return True

    def _excess(self, messages: list[Message]) -> int:
        return len(self._prompt_ids(messages)) - self.prompt_length  # a template costs a millisecond or two

    async def _handle_processing_tools_state(self, agent_data: AgentData) -> AgentState:
        messages, searches = len(agent_data.messages), len(self.episode.queries)
        written = agent_data.prompt_ids, agent_data.response_mask, agent_data.response_logprobs
        if self.settings.enabled:
            self._close_turn(agent_data)
        state = await super()._handle_processing_tools_state(agent_data)
        if state == AgentState.TERMINATED:  # the budget has no room for the responses: the policy has not read them
            agent_data.prompt_ids, agent_data.response_mask, agent_data.response_logprobs = written
            self.episode.forget_after(searches)
        else:
            self.tool_messages.append([{"role": "tool", "content": m["content"]} for m in agent_data.messages[messages:]])
            made = enumerate(self.episode.queries[searches:], start=searches + 1)
            self.states.append(state_of([(query, self.passages.get(number)) for number, query in made]))
        return state

    def _close_turn(self, agent_data: AgentData) -> None:
        """End the policy's turn as the chat template does; the added tokens have no loss.

        The policy stops at `<|im_end|>`, or before it where its turn was cut. verl 0.9.0 adds the newline that follows; 0.9.1 adds
        it for models of the Qwen family alone, though others (SmolLM2) have the same template. Neither completes a turn that was
        cut. Other formats have their own end of a call: verl completes them.
        """
        if self.tool_parser_name not in FORMATS:
            return
        closing = self._closing
        if separator := getattr(self, "turn_separator", []):  # verl 0.9.0
            closing = closing[: -len(separator)]
        _append(agent_data, missing_ids(agent_data.prompt_ids, closing))

    @cached_property
    def _closing(self) -> list[int]:
        return closing_ids(self.tokenizer, **self.apply_chat_template_kwargs)

    async def _call_tool(
        self, tool_call: FunctionCall, tools_kwargs: dict[str, Any], agent_data: AgentData
    ) -> tuple[ToolResponse, float, dict]:
        tool = self.tools.get(tool_call.name)
        if tool is not None and not isinstance(tool, SearchTool):
            return await super()._call_tool(tool_call, tools_kwargs, agent_data)  # a tool of the user: no search, no experience
        search = self.episode.begin_search(query_in(tool_call.arguments) if tool is not None else None, self.max_parallel_calls)
        response, reward, info = await super()._call_tool(tool_call, tools_kwargs, agent_data)
        search.ran(info.get("query", ""))
        self.passages[search.number] = info.get("passages")
        if self.settings.enabled and not info:  # verl's own answer to a broken call quotes the call
            response.text = sanitise(response.text or "", MAX_COMPLAINT_CHARS)
        if info.get("search_failed", 1):
            search.failed()
        else:
            # After super(), so that verl's length limit cuts documents, never experience.
            documents = response.text or ""
            response.text = await search.documents_with_experience(documents, self._room_after(documents, agent_data))
        return response, reward, info

    def _room_after(self, documents: str, agent_data: AgentData) -> int:
        """Return the tokens that experience may take: verl ends the episode on a tool response that does not fit."""
        others = self.max_parallel_calls - 1  # estimate: their documents are as long, and their experience fills its budget
        answers = (others + 1) * self._count_tokens(documents) + others * self.settings.tool.max_tokens
        return max(0, self.response_length - len(agent_data.response_mask) - answers - WRAPPER_TOKENS)

    def _count_tokens(self, text: str) -> int:
        return _tokens_of(self.tokenizer, text)

    def _prompt_ids(self, messages: list[Message]) -> list[int]:
        return prompt_ids(self.tokenizer, messages, self.schemas, **self.apply_chat_template_kwargs)

    def _record(self, output: AgentLoopOutput) -> EpisodeRecord:
        """Return what happened, for the reward, the metrics and the dump."""
        turns = self._assistant_turns(output)
        episode = list(self.messages) if self._is_dumped else []
        for turn, answers in zip_longest(turns, self.tool_messages, fillvalue=()) if episode else ():
            episode += [{"role": "assistant", "content": turn}, *answers]
        return self.episode.record(
            split=self.split,
            messages=tuple(episode),
            states=tuple(self.states) if self.settings.credit.turns else None,
            answer_text=self.domain.answering_text(turns, self.tool_parser_name),
        )

    @property
    def _is_dumped(self) -> bool:
        """Whether somebody reads the text of this episode: a step at scale has 100 MB of it."""
        trainer = self.config.trainer
        if self.training:
            return bool(self.settings.dump_dir or trainer.get("rollout_data_dir"))
        return bool(trainer.get("validation_data_dir"))

    def _assistant_turns(self, output: AgentLoopOutput) -> list[str]:
        """Return the text of each stretch of tokens that the policy wrote (mask 1); without a tool all is one turn."""
        if self.domain.tool is None:
            return [self._text_of(output.response_ids)]
        tokens = zip(output.response_ids, output.response_mask, strict=True)
        turns = [[token for token, _ in stretch] for written, stretch in groupby(tokens, lambda pair: bool(pair[1])) if written]
        return [self._text_of(turn) for turn in turns]


def _append(agent_data: AgentData, ids: list[int]) -> None:
    """Add tokens that the policy did not write: they have no loss."""
    agent_data.prompt_ids = agent_data.prompt_ids + ids
    agent_data.response_mask = agent_data.response_mask + [0] * len(ids)
    if agent_data.response_logprobs:
        agent_data.response_logprobs = agent_data.response_logprobs + [0.0] * len(ids)


@lru_cache(maxsize=1 << 14)
def _tokens_of(tokenizer: Any, text: str) -> int:
    """Count tokens; the entries of a HEK are shown again and again."""
    return len(tokenizer.encode(text, add_special_tokens=False))
