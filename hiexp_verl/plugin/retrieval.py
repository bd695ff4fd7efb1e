"""Retrieval shared by all episodes of a node: one Ray actor holds the encoder, the HEK and the corpus.

Queries of concurrent episodes are micro-batched: one encoder call and one matrix product answer many of them.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any, Protocol

import ray
import torch
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hiexp_verl.config import Budgets, HiExpConfig
from hiexp_verl.domains import domain_named
from hiexp_verl.errors import HiExpError, first_line
from hiexp_verl.guide.arms import arms_of
from hiexp_verl.guide.constitution import constitution_for
from hiexp_verl.guide.lookup import ExperienceRequest, Lookup, LookupFailed
from hiexp_verl.guide.select import values_for
from hiexp_verl.hek.opening import open_encoders, open_hek, pinned
from hiexp_verl.hek.retrieve import Retriever
from hiexp_verl.io.files import digest_of
from hiexp_verl.models.batching import Batcher, MicroBatcher
from hiexp_verl.models.encoder import model_folder
from hiexp_verl.search import SearchEngine, SearchFailed, open_engine, search_each
from hiexp_verl.search.http import longest_answer
from hiexp_verl.settings import block_of
from hiexp_verl.text import is_local, without_credentials
from hiexp_verl.types import Hit, Passage

HTTP_REQUESTS = 8  # in flight at a time
CONCURRENT_CALLS = 4_096  # of the actor
VERSIONS = 3  # of the HEK in memory beside the one of the settings: two that are compared, and the one before


class Retrieval(Protocol):
    """The retrieval of an episode: passages for its searches, entries for its queries and question, best first."""

    async def search(self, query: str, top_k: int) -> list[Passage]: ...  # raises SearchFailed
    async def experience(self, request: ExperienceRequest) -> list[Hit]: ...  # raises LookupFailed


class LocalRetrieval:
    """The retrieval of one process: loads encoder, HEK and corpus of the settings, answers concurrent calls in batches."""

    def __init__(self, settings: HiExpConfig, searches: bool = True) -> None:
        self._settings = settings
        hek = open_hek(settings)
        encoder, search_encoder = open_encoders(settings, hek)
        retriever = Retriever(hek, encoder) if hek is not None and encoder is not None else None
        self._lookup = _lookup(retriever, settings) if retriever is not None else None
        self._encoder = encoder
        self._versions: dict[tuple[str, str], asyncio.Future[Lookup]] = {}  # other versions of the HEK, the latest used last
        searches = searches and domain_named(settings.domain).tool is not None
        self._engine: SearchEngine | None = open_engine(settings.search, search_encoder) if searches else None
        # Several requests to a remote server are in flight at a time; an engine of this process uses the cores itself.
        remote = settings.search.engine == "http"
        self._search = MicroBatcher[tuple[str, int], list[Passage] | SearchFailed](
            self._search_batch,
            workers=HTTP_REQUESTS if remote else 1,
            timeout=longest_answer(settings.search.timeout, settings.search.retries) if remote else settings.search.timeout,
        )

    async def search(self, query: str, top_k: int) -> list[Passage]:
        try:
            found = await self._search((query, top_k))
        except TimeoutError as error:
            raise SearchFailed("time-out", str(error)) from error
        if isinstance(found, SearchFailed):
            raise found
        return found

    async def experience(self, request: ExperienceRequest) -> list[Hit]:
        if self._lookup is None:
            raise HiExpError("no HEK is loaded; set hiexp.hek to its directory")
        if request.version in (None, (self._settings.hek, self._settings.hek_hash)):
            return await self._lookup(request)
        try:
            lookup = await self._version(request.version)
        except HiExpError as error:
            raise LookupFailed("a version of the HEK cannot be loaded", str(error)) from error
        return await lookup(request)

    async def _version(self, version: tuple[str, str]) -> Lookup:
        """Return the look-up of a version, which is loaded once, in a thread."""
        if version not in self._versions or (self._versions[version].done() and self._versions[version].exception()):
            self._versions[version] = asyncio.ensure_future(asyncio.to_thread(self._open, version))
            for oldest in list(self._versions)[:-VERSIONS]:
                del self._versions[oldest]
        found = self._versions[version] = self._versions.pop(version)
        return await asyncio.shield(found)

    def _open(self, version: tuple[str, str]) -> Lookup:
        settings = replace(self._settings, hek=version[0], hek_hash=version[1])
        hek = open_hek(settings)
        assert hek is not None and self._encoder is not None
        return _lookup(Retriever(hek, self._encoder), settings)

    def _search_batch(self, items: list[tuple[str, int]]) -> list[list[Passage] | SearchFailed]:
        if self._engine is None:
            raise HiExpError("this process answers look-ups of experience alone; ask the first one of the node")
        found = search_each(self._engine, [query for query, _ in items], max(k for _, k in items))
        return [hits if isinstance(hits, SearchFailed) else [p for p, _ in hits[:k]] for hits, (_, k) in zip(found, items, strict=True)]


def _lookup(retriever: Retriever, settings: HiExpConfig) -> Lookup:
    version, content_hash = Path(str(settings.hek)), retriever.hek.header.content_hash
    values = values_for(version, content_hash, Budgets(settings.prompt, settings.tool))
    fixed = constitution_for(version, content_hash, arms_of(settings))
    return Lookup(retriever, settings.prompt, settings.tool, values=values, constitution=fixed, domain=domain_named(settings.domain))


class _Actor(LocalRetrieval):
    """The retrieval in the actor, with more threads: Ray gives an actor of `num_cpus=0` only one."""

    def __init__(self, settings: HiExpConfig, searches: bool = True) -> None:
        torch.set_num_threads(min(settings.encoder.threads, os.cpu_count() or 1))
        super().__init__(settings, searches)

    async def experiences(self, requests: list[ExperienceRequest]) -> list[list[Hit] | BaseException]:
        """Return for each request the entries found, or the error."""
        return await asyncio.gather(*map(self.experience, requests), return_exceptions=True)


class ActorRetrieval:
    """The same interface over the node's Ray actor.

    Concurrent look-ups share one call of the actor, which costs about as much as the look-up. Searches do not, since they may
    go to a server: none waits for the slowest of a batch. The first actor searches, all of them look up, in turn.
    """

    def __init__(self, *actors: Any) -> None:
        self.actor = actors[0]
        self._experiences = cycle(
            Batcher[ExperienceRequest, list[Hit] | BaseException](actor.experiences.remote, workers=CONCURRENT_CALLS) for actor in actors
        )

    async def search(self, query: str, top_k: int) -> list[Passage]:
        try:
            return await self.actor.search.remote(query, top_k)
        except RayActorError as error:  # died more often than Ray restarts it
            raise SearchFailed("unreachable", str(error)) from error

    async def experience(self, request: ExperienceRequest) -> list[Hit]:
        try:
            found = await next(self._experiences)(request)
        except RayActorError as error:
            raise LookupFailed("retrieval died", str(error)[-400:]) from error
        if isinstance(found, BaseException):
            raise found
        return found


def on_every_node(work: Callable[..., Any], *args: Any) -> list[tuple[dict[str, Any], Any]]:
    """Return each living node of the cluster with the result of `work(*args)` there, to be fetched by `ray.get`."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    places = (NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False) for node in nodes)
    asked = [ray.remote(work).options(num_cpus=0, scheduling_strategy=place).remote(*args) for place in places]
    return list(zip(nodes, asked, strict=True))


def check_addresses(settings: HiExpConfig, nodes: int, said: str) -> None:
    """Check that a run on several nodes asks no server that is each node's own machine; `said` is where their number stands.

    Raises:
        HiExpError: it does.
    """
    search = settings.search
    asked = {
        "search.url": search.url if search.engine == "http" else None,
        "search.encoder": search.encoder if search.engine == "dense" else None,
        "encoder": settings.encoder.path,
        "loop.distiller": settings.loop.distiller.removeprefix("openai:") if settings.loop.enabled else None,
    }
    for name, place in asked.items():
        if nodes > 1 and place and place.startswith(("http://", "https://")) and is_local(place):
            fault = f"hiexp.{name}={without_credentials(place)} is each node's own machine, and {said}"
            raise HiExpError(f"{fault}; give an address that every node reaches")


def check_nodes(settings: HiExpConfig) -> None:
    """Check on every node of the cluster that HEK, corpus and encoders of the settings are there, before a device is touched.

    An encoder of the hub is fetched, as the actor there does. A server is not asked: the actor says at its start whether it answers.

    Raises:
        HiExpError: a server is each node's own machine, or a node lacks one; the agent loops there would fail minutes later.
    """
    nodes = sum(node["Alive"] for node in ray.nodes()) if ray.is_initialized() else 1
    if nodes < 2:
        return
    check_addresses(settings, nodes, f"the cluster has {nodes} nodes")
    for node, answer in on_every_node(_missing, settings):
        if missing := ray.get(answer):
            where = f"the node {node['NodeManagerAddress']} ({node['NodeManagerHostname']})"
            raise HiExpError(f"{where} has no {' and no '.join(missing)}; put it there, or on a file system that all nodes share")


def _missing(settings: HiExpConfig) -> list[str]:
    """Return what a run would not find on this machine."""
    places = [settings.hek if settings.enabled else None, settings.search.corpus]
    missing = [place for place in places if place and os.path.isabs(place) and not os.path.exists(place)]
    dense = settings.search.engine == "dense"
    for encoder in {settings.encoder.path if settings.enabled or dense else None, settings.search.encoder if dense else None}:
        try:
            if encoder and not encoder.startswith(("hash:", "http://", "https://")):
                model_folder(encoder)
        except HiExpError as error:
            missing.append(f"encoder {encoder} ({first_line(error.__cause__ or error)})")
    return missing


@cache
def retrieval_for(settings: HiExpConfig) -> Retrieval:
    """Return the retrieval of this node: the shared actor under Ray, otherwise an object of this process."""
    if not ray.is_initialized():
        return LocalRetrieval(settings)
    node = ray.get_runtime_context().get_node_id()
    name = f"hiexp_retrieval_{node}_{digest_of(block_of(settings)).hex()[:12]}"
    options = {
        "get_if_exists": True,
        "num_cpus": 0,  # it must never wait for a CPU slot: Ray would hang silently
        "num_gpus": 0 if settings.encoder.device == "cpu" else 1,  # without one Ray hides the GPUs from it
        "max_concurrency": CONCURRENT_CALLS,
        "max_restarts": 3,  # it can load everything again
        "max_task_retries": 3,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=node, soft=False),
    }
    # Ray uses the pinned settings also when it restarts the actor.
    made = [
        ray.remote(_Actor).options(name=f"{name}_{number}", **options).remote(pinned(settings), number == 0)
        for number in range(settings.encoder.actors)
    ]
    return ActorRetrieval(*made)
