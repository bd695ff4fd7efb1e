"""One episode of the search agent on one question, over the ports: model, search engine, experience."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Protocol

from pydantic import Field
from typing_extensions import Unpack

from hiexp_verl.config import RewardKind, SearchConfig
from hiexp_verl.guide.episode import AsyncGuidedEpisode, Guidance
from hiexp_verl.guide.guide import Guide
from hiexp_verl.guide.lookup import ExperienceRequest
from hiexp_verl.models.chat import ChatOptions, PromptTooLong, Reply
from hiexp_verl.protocol import (
    Format,
    answering_text,
    call_tags,
    close_call,
    find_search,
    first_messages,
    render_documents,
    search_failed_message,
    write_call,
)
from hiexp_verl.scoring import extract_answer, score
from hiexp_verl.search import SearchEngine, SearchFailed, search_each
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
    max_searches: Count = 4  # a further call ends the episode
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
    completion_tokens: int = 0
    stop: str = ""  # "answer", "no_answer", "length", "search_limit", "prompt_too_long"


@dataclass(frozen=True)
class Players:
    """What an episode is played with; shared by all episodes of a run."""

    client: Client
    search: SearchEngine
    guide: Guide | None = None  # None: no experience
    reading: SearchConfig = field(default_factory=SearchConfig)  # how many passages of a search the model reads, and how much of them


async def episode(question: Question, players: Players, settings: EpisodeSettings, sample: int = 0) -> Trajectory:
    """Play the question once; the sample number makes its seed.

    Raises:
        HiExpError: the model's server fails for good, or even the first prompt is too long for it. A failed search or a
            prompt that grew too long does not raise: both are recorded in `extra`.
    """
    started = time.monotonic()
    if players.guide is not None:
        guided = await players.guide.abegin(question.question, question.id, sample)
    else:
        guided = AsyncGuidedEpisode(Guidance(arm="none"), _no_entries, question.question, question.id, sample)
    messages = await guided.system(first_messages(question.question, settings.format, settings.instructions))
    state = _State(question, guided, messages, started)
    while not state.stop:
        query = await _model_turn(state, players.client, settings, seed_of(settings.seed, question.id, sample, len(guided.queries)))
        if query is not None and len(guided.queries) < settings.max_searches:
            await _search_turn(state, query, players, settings.format)
        elif query is not None:
            state.stop = "search_limit"
    return _trajectory(state, players.client.model, settings)


async def _model_turn(state: _State, client: Client, settings: EpisodeSettings, seed: int) -> str | None:
    """Play a turn of the model; return the query that it searches for, or None (then the reason to stop is set)."""
    closing = call_tags(settings.format)[1]
    try:
        reply = await client.chat(
            state.messages,
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            seed=seed,
            stop=[closing],
        )
    except PromptTooLong as error:
        if not state.guided.queries:  # nothing has grown: no episode with these settings fits this model
            raise
        logger.warning("an episode ends early: %s", error)
        state.stop = "prompt_too_long"
        return None
    state.completion_tokens += reply.completion_tokens
    written = reply.text
    if called := find_search(reply.calls, "hermes"):  # the server knows this call as one, whatever the dialect of the episode
        written = written.removesuffix(reply.calls) + write_call(called, settings.format)
    before, closed, _ = written.partition(closing)  # not every server stops at a stop string
    text = (before + closed).encode("utf-8", "replace").decode()  # a lone surrogate cannot be written to a file
    cut_short = reply.finish_reason == "length" and not closed
    if not cut_short:
        text = close_call(text, settings.format)
    query = find_search(text, settings.format)
    if query is None:
        has_answer = extract_answer(answering_text([text], settings.format)) is not None
        state.stop = "answer" if has_answer else "length" if cut_short else "no_answer"
    state.messages.append({"role": "assistant", "content": text})
    return query


async def _search_turn(state: _State, query: str, players: Players, format: Format) -> None:
    read = players.reading
    (found,) = await asyncio.to_thread(search_each, players.search, [query], read.top_k)
    if isinstance(found, SearchFailed):
        logger.warning("search failed: %s", found.reason)
        state.guided.search_failed(query)
        text = search_failed_message(found.reason, format)
    else:
        documents = render_documents([passage for passage, _ in found], format, read.max_words_per_passage, read.max_chars)
        text = await state.guided.tool(query, documents)
    state.messages.append({"role": "tool", "content": text})


async def _no_entries(_: ExperienceRequest) -> list[Hit]:
    return []


def _trajectory(state: _State, model: str, settings: EpisodeSettings) -> Trajectory:
    question = state.question
    turns = [m["content"] for m in state.messages if m["role"] == "assistant"]
    prediction = extract_answer(answering_text(turns, settings.format))
    result = score(prediction, question.answers, settings.reward, question.question)
    record = state.guided.record(
        split=question.meta.get("split"),
        messages=tuple(state.messages),
        stop=state.stop,
        completion_tokens=state.completion_tokens,
        seconds=round(time.monotonic() - state.started, 3),
    )
    played = record.trajectory(question.answers, prediction, result, model)
    scores = {name: value for name, value in asdict(result).items() if name != "reward"}
    return replace(played, extra={**played.extra, **scores})


def seed_of(*parts: int | str) -> int:
    """Return a seed of its own for each turn, so that samples differ and a resumed run equals an uninterrupted one."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:4], "little") >> 1  # servers want it to fit a signed 32-bit number
