"""Retrieval shared by all episodes of a node: one Ray actor holds the encoder, the HEK and the corpus.

Queries of concurrent episodes are micro-batched: one encoder call and one matrix product answer many of them.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from hiexp_verl.config import HiExpConfig, SearchConfig
from hiexp_verl.encoder import Encoder, load_encoder
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.locate import open_encoder
from hiexp_verl.hek.retrieve import Retriever
from hiexp_verl.hek.store import HEK
from hiexp_verl.run.guide import LEVELS_OF, Place
from hiexp_verl.search import SearchEngine, open_engine
from hiexp_verl.types import Hit, Passage

Item = TypeVar("Item")
Result = TypeVar("Result")
MAX_BATCH = 64
MAX_WAIT_SECONDS = 0.004  # one query takes the encoder about as long, so waiting for company is nearly free


class Retrieval(Protocol):
    """What an episode asks for."""

    async def search(self, query: str, top_k: int) -> list[Passage]:
        """Return the passages found; raises SearchFailed."""
        ...

    async def experience(self, request: "ExperienceRequest") -> list[Hit]:
        """Return the entries found, best first."""
        ...


@dataclass(frozen=True)
class ExperienceRequest:
    """One look-up in the HEK."""

    place: Place
    text: str
    exclude_question: str | None = None


class MicroBatcher(Generic[Item, Result]):
    """Collect concurrent calls for a few milliseconds and answer them with one call of `run` in a thread."""

    def __init__(self, run: Callable[[list[Item]], Sequence[Result]]) -> None:
        self._run = run
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._thread = ThreadPoolExecutor(max_workers=1)  # one batch at a time: the encoder uses all its threads
        self._flush: asyncio.Task[None] | None = None
        self.batches = 0

    async def __call__(self, item: Item) -> Result:
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._flush is None or self._flush.done():
            self._flush = asyncio.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        await asyncio.sleep(MAX_WAIT_SECONDS)
        while self._waiting:
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            await self._answer(batch)

    async def _answer(self, batch: list[tuple[Item, "asyncio.Future[Result]"]]) -> None:
        self.batches += 1
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._thread, self._run, [i for i, _ in batch])
        except Exception as error:  # handed on to every caller, who decides
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)


class LocalRetrieval:
    """The retrieval of one process: loads what the settings name, answers concurrent calls in batches."""

    def __init__(self, settings: HiExpConfig) -> None:
        hek = HEK.load(Path(settings.hek)) if settings.enabled and settings.hek else None
        encoder = _encoder(settings, hek)
        self._retriever = Retriever(hek, encoder) if hek is not None and encoder is not None else None
        calibrated = hek.header.thresholds if hek is not None else {}
        step_score = settings.step.min_score if settings.step.min_score is not None else calibrated.get("step_min_score")
        self._top_k: dict[Place, int] = {"start": settings.start.top_k, "step": settings.step.top_k}
        self._min_score: dict[Place, float | None] = {"start": settings.start.min_score, "step": step_score}
        self._engine: SearchEngine = open_engine(settings.search, encoder)
        self._search = MicroBatcher[tuple[str, int], list[Passage]](self._search_batch)
        self._experience = MicroBatcher[ExperienceRequest, list[Hit]](self._experience_batch)

    async def search(self, query: str, top_k: int) -> list[Passage]:
        return await self._search((query, top_k))

    async def experience(self, request: ExperienceRequest) -> list[Hit]:
        return await self._experience(request)

    def _search_batch(self, items: list[tuple[str, int]]) -> list[list[Passage]]:
        top_k = max(k for _, k in items)
        found = self._engine.search([query for query, _ in items], top_k)
        return [[passage for passage, _ in hits[:k]] for hits, (_, k) in zip(found, items, strict=True)]

    def _experience_batch(self, requests: list[ExperienceRequest]) -> list[list[Hit]]:
        if self._retriever is None:
            raise HiExpError("no HEK is loaded; set hiexp.hek to its directory")
        queries_N_D = self._retriever.encoder.encode_queries([r.text for r in requests])
        answers: list[list[Hit]] = [[] for _ in requests]
        for place in LEVELS_OF:
            rows = [i for i, r in enumerate(requests) if r.place == place]
            if not rows:
                continue
            hits = self._retriever.retrieve_vectors(
                queries_N_D[rows],
                levels=LEVELS_OF[place],
                top_k=self._top_k[place],
                min_score=self._min_score[place],
                exclude_questions=[requests[i].exclude_question for i in rows],
            )
            for i, found in zip(rows, hits, strict=True):
                answers[i] = found
        return answers


def _encoder(settings: HiExpConfig, hek: HEK | None) -> Encoder | None:
    """Load the one encoder that the settings need, if any: the HEK's and the dense search's are shared."""
    if hek is not None and settings.hek:
        return open_encoder(hek, Path(settings.hek), settings.encoder)
    if settings.search.engine != "dense":
        return None
    spec = settings.encoder or settings.search.encoder
    if spec is None:
        raise HiExpError("dense search needs an encoder; set hiexp.search.encoder to a directory or a name")
    return load_encoder(spec)


class ActorRetrieval:
    """The same interface over the node's Ray actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    async def search(self, query: str, top_k: int) -> list[Passage]:
        return await self._actor.search.remote(query, top_k)

    async def experience(self, request: ExperienceRequest) -> list[Hit]:
        return await self._actor.experience.remote(request)


def retrieval_for(settings: HiExpConfig | SearchConfig) -> Retrieval:
    """Return the retrieval of this node: the shared actor under Ray, an object of this process without."""
    if isinstance(settings, SearchConfig):
        settings = HiExpConfig(enabled=False, search=settings)
    return _retrieval(settings)


@cache
def _retrieval(settings: HiExpConfig) -> Retrieval:
    import ray

    if not ray.is_initialized():
        return LocalRetrieval(settings)
    node = ray.get_runtime_context().get_node_id()
    key = hashlib.sha256(json.dumps(asdict(settings), sort_keys=True).encode()).hexdigest()[:12]
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    actor = (
        ray.remote(LocalRetrieval)
        .options(
            name=f"hiexp_retrieval_{node}_{key}",
            get_if_exists=True,
            num_cpus=0,  # it must never wait for a CPU slot: a starved Ray hangs without a word
            max_concurrency=4096,
            scheduling_strategy=strategy,
        )
        .remote(settings)
    )
    return ActorRetrieval(actor)
