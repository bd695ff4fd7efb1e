"""One episode of a domain's agent on one question, over the ports: model, tool, experience."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Protocol

from pydantic import Field
from typing_extensions import Unpack

from hiexp_verl.config import RewardKind, SearchConfig
from hiexp_verl.domains.domain import Domain, Tool, ToolFailed, Use
from hiexp_verl.domains.search import SEARCH
from hiexp_verl.errors import HiExpError, first_line
from hiexp_verl.guide.episode import AsyncGuidedEpisode, Guidance
from hiexp_verl.guide.guide import Guide
from hiexp_verl.guide.lookup import ExperienceRequest
from hiexp_verl.models.chat import ChatOptions, PromptTooLong, Reply
from hiexp_verl.protocol import Format, close_call
from hiexp_verl.settings import Count, Seed, settings
from hiexp_verl.types import Hit, Message, Question, Trajectory

logger = logging.getLogger(__name__)


class Client(Protocol):
    """The model that plays, as `models.chat.ChatClient`."""

    model: str

    async def chat(self, messages: Sequence[Message], *, max_tokens: int, **options: Unpack[ChatOptions]) -> Reply: ...
    async def close(self) -> None: ...


@settings()
class EpisodeSettings:
    """How an episode is played; two runs with equal settings, search and model are comparable."""

    format: Format = "search_tags"
    instructions: str = ""  # the system prompt, where it is not the dialect's own
    max_searches: Count = 4  # calls of the tool; a further one ends the episode
    max_tokens: Count = 128  # of one turn of the model
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0  # 0: greedy
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Seed = 0
    reward: RewardKind = "concise"


@dataclass
class _State:
    """What has happened so far; one per episode."""

    question: Question
    guided: AsyncGuidedEpisode
    messages: list[Message]
    started: float  # seconds, of a clock that only goes forward
    requests: int = 0
    completion_tokens: int = 0
    stop: str = ""  # "answer", "no_answer", "length", "search_limit", "prompt_too_long"


@dataclass(frozen=True)
class Players:
    """What an episode is played with; shared by all episodes of a run."""

    client: Client
    engine: Any  # what the tool of the domain runs on: a search engine, a database; None without a tool
    guide: Guide | None = None  # None: no experience
    reading: SearchConfig = field(default_factory=SearchConfig)  # how many passages of a search the model reads, and how much of them
    domain: Domain = SEARCH


async def episode(question: Question, players: Players, settings: EpisodeSettings, sample: int = 0) -> Trajectory:
    """Play the question once; the sample number makes its seed.

    Raises:
        HiExpError: the model's server fails for good, or even the first prompt is too long for it. A tool that fails or a
            prompt that grew too long does not raise: both are recorded in `extra`.
    """
    started = time.monotonic()
    if players.guide is not None:
        guided = await players.guide.abegin(question.question, question.id, sample)
    else:
        guided = AsyncGuidedEpisode(Guidance(arm="none", domain=players.domain), _no_entries, question.question, question.id, sample)
    messages = await guided.system(players.domain.first_messages(question.question, settings.format, settings.instructions))
    state = _State(question, guided, messages, started)
    while not state.stop:
        call = await _model_turn(state, players, settings, seed_of(settings.seed, question.id, sample, state.requests))
        if call is not None and len(guided.queries) < settings.max_searches:
            await _tool_turn(state, call, players, settings.format)
        elif call is not None:
            state.stop = "search_limit"
    if players.domain.score_blocks:
        return await asyncio.to_thread(_trajectory, state, players, settings)
    return _trajectory(state, players, settings)


async def _model_turn(state: _State, players: Players, settings: EpisodeSettings, seed: int) -> str | None:
    """Play a turn of the model, or its part up to a stop between steps; return what it asks of the tool.

    None: it asks nothing, and unless it goes on after a step the reason to stop is set.
    """
    domain, format = players.domain, settings.format
    options: ChatOptions = {"temperature": settings.temperature, "top_p": settings.top_p, "seed": seed}
    if stop := [domain.tool.tags(format)[1]] if domain.tool is not None else state.guided.stops.stop:
        options["stop"] = stop
    left = settings.max_tokens - (state.completion_tokens if domain.tool is None else 0)
    limit = min(left, state.guided.stops.limit or left)
    try:
        reply = await players.client.chat(state.messages, max_tokens=limit, **options)
    except PromptTooLong as error:
        if state.messages[-1]["role"] == "user":  # nothing has grown: no episode with these settings fits this model
            raise
        logger.warning("an episode ends early: %s", error)
        state.stop = "prompt_too_long"
        return None
    state.requests += 1
    state.completion_tokens += reply.completion_tokens
    call, text, cut_short = _read(reply, domain.tool, format)
    step = state.guided.stops.read(text, cut_short)
    goes_on = step is not None and left > reply.completion_tokens
    if state.messages[-1]["role"] == "assistant":
        text = state.messages.pop()["content"] + text
    has_answer = call is None and domain.answer_in(domain.answering_text([text], format)) is not None
    if has_answer:
        state.guided.stops.end()
    elif step and goes_on:
        text += await state.guided.step(step)
    if call is None and not goes_on:
        state.stop = "answer" if has_answer else "length" if cut_short or step is not None else "no_answer"
    state.messages.append({"role": "assistant", "content": text})
    return call


def _read(reply: Reply, tool: Tool | None, format: Format) -> tuple[str | None, str, bool]:
    """Return the call in a reply, the text up to the end of the turn, and whether that was cut off by the limit of tokens."""
    written, closed = reply.text, ""
    if tool is not None:
        if called := tool.call_in(reply.calls, "hermes"):  # the server knows this call as one, whatever the dialect of the episode
            written = written.removesuffix(reply.calls) + tool.write_call(called, format)
        before, closed, _ = written.partition(tool.tags(format)[1])  # not every server stops at a stop string
        written = before + closed
    text = written.encode("utf-8", "replace").decode()  # a lone surrogate cannot be written to a file
    cut_short = reply.finish_reason == "length" and not closed
    if tool is None:
        return None, text, cut_short
    text = text if cut_short else close_call(text, tool.tags(format))
    return tool.call_in(text, format), text, cut_short


async def _tool_turn(state: _State, call: str, players: Players, format: Format) -> None:
    tool = players.domain.tool
    assert tool is not None
    answer = await asyncio.to_thread(_answer, tool, Use(call, state.question, format, players.engine, players.reading))
    if isinstance(answer, ToolFailed):
        logger.warning("%s failed: %s", players.domain.action[0], answer.reason)
        state.guided.search_failed(call)
        text = tool.failed(answer.reason, format)
    else:
        text = await state.guided.tool(call, answer)
    state.messages.append({"role": "tool", "content": text})


def _answer(tool: Tool, use: Use) -> str | ToolFailed:
    """Return what the tool answers, or why it failed: whatever it raises must not end the episodes of others."""
    try:
        return tool.answer(use)
    except ToolFailed as failure:
        return failure
    except HiExpError:  # a setting that is wrong for every call
        raise
    except Exception as error:
        logger.exception("the tool raised")
        return ToolFailed("tool error", first_line(error))


async def _no_entries(_: ExperienceRequest) -> list[Hit]:
    return []


def _trajectory(state: _State, players: Players, settings: EpisodeSettings) -> Trajectory:
    question, domain = state.question, players.domain
    turns = [m["content"] for m in state.messages if m["role"] == "assistant"]
    prediction = domain.answer_in(domain.answering_text(turns, settings.format))
    result = domain.score(prediction, question.answers, settings.reward, question.question)
    record = state.guided.record(
        split=question.meta.get("split"),
        messages=tuple(state.messages),
        stop=state.stop,
        completion_tokens=state.completion_tokens,
        seconds=round(time.monotonic() - state.started, 3),
    )
    played = record.trajectory(question.answers, prediction, result, players.client.model)
    scores = {name: value for name, value in asdict(result).items() if name != "reward"}
    return replace(played, extra={**played.extra, **scores})


def seed_of(*parts: int | str) -> int:
    """Return a seed of its own for each turn, so that samples differ and a resumed run equals an uninterrupted one."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:4], "little") >> 1  # servers want it to fit a signed 32-bit number
