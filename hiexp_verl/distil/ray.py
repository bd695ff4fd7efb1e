"""The stages of a build on a Ray cluster, such as the one that verl trains on. The same result as in one process.

Diagnoses and encodings are spread; clustering runs in one process, and distillers are asked concurrently in any case.
"""

import socket
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TypeVar

import numpy as np

from hiexp_verl.errors import HiExpError
from hiexp_verl.models.encoder import CHUNK, EncoderIdentity, Vectors, load_encoder

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
    host, _, port = address.rpartition(":")
    try:
        if port.isdecimal() and "//" not in host:  # Ray itself would wait for minutes where nobody listens
            socket.create_connection((host, int(port)), timeout=5).close()
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise HiExpError(f"no Ray cluster at {address!r}; start one with `ray start --head`, or leave --ray out") from error


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
    """An encoder whose chunks of texts are encoded by all CPUs of the cluster.

    Raises:
        HiExpError: see `load_encoder`.
    """

    def __init__(self, spec: str) -> None:
        self._spec = spec
        self.identity: EncoderIdentity = load_encoder(spec).identity  # a wrong one fails here and not in a worker

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Encode what is searched with; (N, D)."""
        return self._encode("queries", texts)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Encode what is searched; (N, D)."""
        return self._encode("passages", texts)

    def _encode(self, kind: str, texts: Sequence[str]) -> Vectors:
        # In the chunks of a local encoder: the last bits of a vector depend on what it is batched with.
        chunks = [list(texts[start : start + CHUNK]) for start in range(0, len(texts), CHUNK)]
        none_0_D = np.zeros((0, self.identity.dimensions), dtype=np.float32)
        return np.concatenate([none_0_D, *ray_map(partial(_encode, self._spec, kind), chunks)])


_loaded = cache(load_encoder)  # once in each worker process


def _encode(spec: str, kind: str, texts: list[str]) -> Vectors:
    encoder = _loaded(spec)
    return encoder.encode_queries(texts) if kind == "queries" else encoder.encode_passages(texts)
