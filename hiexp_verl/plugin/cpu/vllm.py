"""The rollout engine `vllm_cpu`: verl's own vLLM replica and server, on vLLM's CPU build.

Only the receiver of the weight sync differs, because on a CPU (a) the received tensors alias the shared-memory buffer, which
cannot be closed before they are freed, and (b) vLLM has replaced its linear weights by packed kernels, so weights go through the
model runner's layer-by-layer reload.
"""

import importlib
import importlib.metadata
from typing import Any

import ray
import torch

from hiexp_verl.io.manifest import version_of


def _import_verl_vllm() -> None:
    """Import verl's vLLM package where vLLM is installed as the distribution `vllm-cpu`.

    It asks the package metadata for a distribution named `vllm` and gives up when there is none; vLLM's own platform detection,
    which runs inside the same import, wants "cpu" in the answer. So the metadata answers `<version>+cpu` during that import.
    """
    real_version = importlib.metadata.version

    def version(name: str) -> str:
        return f"{real_version('vllm-cpu')}+cpu" if name == "vllm" else real_version(name)

    importlib.metadata.version = version
    try:
        importlib.import_module("verl.workers.rollout.vllm_rollout")
    finally:
        importlib.metadata.version = real_version


if version_of("vllm-cpu") is not None:
    _import_verl_vllm()

from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver  # noqa: E402
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension  # noqa: E402
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica  # noqa: E402
from verl.workers.rollout.vllm_rollout.vllm_rollout import ServerAdapter  # noqa: E402

__all__ = ["ServerAdapter", "vLLMCPUReplica"]  # what verl loads by name


class CPUWorkerExtension(vLLMColocateWorkerExtension):
    """Receives the actor's weights inside vLLM's CPU worker."""

    model_runner: Any  # of the worker that vLLM mixes this class into

    def update_weights_from_ipc(self, peft_config: dict | None = None, base_sync_done: bool = False, use_shm: bool = False) -> None:
        """Receive all buckets, then reload the model layer by layer."""
        if peft_config and base_sync_done:
            super().update_weights_from_ipc(peft_config, base_sync_done, use_shm)
            return
        weights: dict[str, torch.Tensor] = {}

        def keep(bucket: list[tuple[str, torch.Tensor]], is_last: bool) -> None:
            weights.update((name, tensor.clone()) for name, tensor in bucket)

        receiver = BucketedWeightReceiver(self._get_zmq_handle(), device=torch.device("cpu"), use_shm=use_shm)
        receiver.receive_weights(on_bucket_received=keep)
        self.model_runner.reload_weights(weights_iterator=iter(weights.items()))
        _retie_output_embedding(self.model_runner.get_model(), self.model_runner.model_config.hf_config)


def _retie_output_embedding(model: torch.nn.Module, hf_config: object) -> None:
    """Give a tied `lm_head` the new embedding, and pack it again.

    A tied head has no weight of its own in the checkpoint, so the reload leaves it with the kernel that was packed from
    the old one: without this the perplexity of rollouts is the size of the vocabulary.
    """
    if not getattr(hf_config, "tie_word_embeddings", False):
        return
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

    embeddings = [m for m in model.modules() if type(m) is VocabParallelEmbedding]
    heads = [m for m in model.modules() if isinstance(m, ParallelLMHead)]
    if len(embeddings) != 1 or len(heads) > 1:
        raise RuntimeError(f"cannot tie {len(heads)} heads to {len(embeddings)} embeddings in {type(model).__name__}")
    for head in heads:
        head.weight = embeddings[0].weight
        dispatch_cpu_unquantized_gemm(head, remove_weight=False)


class vLLMCPUServer(vLLMHttpServer):
    """verl's vLLM server with the CPU worker extension."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # An explicit __init__ makes cloudpickle send this class by reference, base class and all.
        super().__init__(*args, **kwargs)

    def _get_worker_extension_cls(self) -> str:
        return f"{CPUWorkerExtension.__module__}.{CPUWorkerExtension.__qualname__}"


class vLLMCPUReplica(vLLMReplica):
    """verl's vLLM replica with the CPU server; trainers find it under the rollout's name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.server_class = ray.remote(vLLMCPUServer)

    def _get_server_name_prefix(self) -> str:
        return "vllm_cpu_"
