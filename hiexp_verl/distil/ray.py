"""The stages of a build on a Ray cluster, such as the one that verl trains on. The same result as in one process.

Diagnoses and encodings are spread; clustering is one process's work, and distillers are asked concurrently anyway.
"""

import socket
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from hiexp_verl.errors import HiExpError
from hiexp_verl.models.encoder import CHUNK, Encoder, EncoderIdentity, Vectors, load_encoder

Item = TypeVar("Item")
Result = TypeVar("Result")
_TASKS_PER_CPU = 4  # small enough to balance, large enough to be worth a task


def connect(address: str = "auto") -> None:
    """Join a running cluster (`auto` finds the one of this machine), or use the one that this process is in.

    Raises:
        HiExpError: Ray is not installed, or there is no such cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise HiExpError("--ray needs Ray; install ray, or leave --ray out") from error
    if ray.is_initialized():
        return
    try:
        _reach(address)
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise HiExpError(f"no Ray cluster at {address!r}; start one with `ray start --head`, or leave --ray out") from error


def _reach(address: str) -> None:
    """Raise an OSError where nobody listens: Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdecimal() and "//" not in host:
        socket.create_connection((host, int(port)), timeout=5).close()


def ray_map(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Return the function of every item, in order, computed on all nodes.

    What the function raises is raised here.
    """
    import ray
    from ray.exceptions import RayTaskError

    size = max(1, len(items) // (_TASKS_PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 1)))))

    @ray.remote
    def some(chunk: list[Item]) -> list[Result]:
        return [function(item) for item in chunk]

    tasks = [some.remote(list(items[start : start + size])) for start in range(0, len(items), size)]
    try:
        return [result for chunk in ray.get(tasks) for result in chunk]
    except RayTaskError as error:
        raise error.cause from error


class RayEncoder:
    """An encoder with a copy on each of `copies` CPUs of the cluster.

    Raises:
        HiExpError: see `load_encoder`.
    """

    def __init__(self, spec: str, copies: int | None = None) -> None:
        import ray

        self.identity: EncoderIdentity = load_encoder(spec).identity  # a wrong one fails here and not in a worker
        count = copies or max(1, int(ray.cluster_resources().get("CPU", 1)))

        @ray.remote(num_cpus=1)
        class Worker:
            def __init__(self) -> None:
                self._encoder: Encoder = load_encoder(spec)

            def encode(self, kind: str, texts: list[str]) -> Vectors:
                return self._encoder.encode_queries(texts) if kind == "queries" else self._encoder.encode_passages(texts)

        self._workers: list[Any] = [Worker.remote() for _ in range(count)]

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Encode what is searched with; (N, D)."""
        return self._encode("queries", texts)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Encode what is searched; (N, D)."""
        return self._encode("passages", texts)

    def _encode(self, kind: str, texts: Sequence[str]) -> Vectors:
        from ray.util import ActorPool

        # In the chunks of a local encoder: the last bits of a vector depend on what it is batched with.
        chunks = [list(texts[start : start + CHUNK]) for start in range(0, len(texts), CHUNK)]
        if not chunks:
            return np.zeros((0, self.identity.dimensions), dtype=np.float32)
        found = ActorPool(self._workers).map(lambda worker, chunk: worker.encode.remote(kind, chunk), chunks)
        return np.concatenate(list(found))

    def close(self) -> None:
        """Give the CPUs back."""
        import ray

        for worker in self._workers:
            ray.kill(worker)
