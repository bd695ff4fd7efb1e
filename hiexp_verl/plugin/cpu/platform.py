"""The platform `cpu` for verl: active only with VERL_PLATFORM=cpu.

verl schedules by accelerators, so on a CPU each rank holds one *logical* Ray GPU (`ray_kwargs.ray_init.num_gpus`), and the process
group is gloo.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import ModuleType
from typing import Any

import torch
from verl.plugin.platform import PlatformRegistry
from verl.plugin.platform.platform_base import PlatformBase


def _zero(*_: Any, **__: Any) -> int:
    """Return 0: the memory of a device that is not there."""
    return 0


def _nothing(*_: Any, **__: Any) -> None:
    """Do nothing: only an accelerator has this to do."""


def _torch_cpu_with_memory_api() -> ModuleType:
    """Return torch.cpu with the functions that verl calls on every device."""
    module = ModuleType("torch_cpu_with_memory_api")
    module.__dict__.update({name: getattr(torch.cpu, name) for name in dir(torch.cpu) if not name.startswith("__")})
    memory = ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved")
    module.__dict__.update(dict.fromkeys(memory, _zero))
    module.__dict__.update(
        dict.fromkeys(("empty_cache", "ipc_collect", "reset_peak_memory_stats", "manual_seed", "manual_seed_all"), _nothing),
        get_rng_state=torch.get_rng_state,  # on resume
        set_rng_state=torch.set_rng_state,
        mem_get_info=lambda *_: (0, 0),
        get_device_name=lambda *_: "CPU",  # of unknown speed to verl's FLOPS table
        is_available=lambda: False,  # verl guards its CUDA-only code with this
    )
    return module


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):
    """verl's device interface on a machine without an accelerator."""

    device_name = vendor_name = "cpu"  # type: ignore[assignment]  # properties in verl
    device_module = _torch_cpu_with_memory_api()  # type: ignore[assignment]

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return False  # never detected by itself: only VERL_PLATFORM=cpu asks for it

    def current_device(self) -> torch.device:  # type: ignore[override]  # an index would make `.to()` look for a GPU
        return torch.device("cpu")

    def device_count(self) -> int:
        return 1

    set_device = synchronize = set_allocator_settings = empty_cache = profiler_start = profiler_stop = cudart = _nothing

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        """Return "gloo", and in a Ray worker create the process group first.

        verl builds the string "cpu:gloo,<device>:<backend>", which torch refuses when the device is the CPU itself
        ("Duplicate device type cpu"). The string is built before verl checks whether a group exists, so creating it
        here is the one place that needs no patch.
        """
        if os.environ.get("WG_BACKEND") == "ray" and not torch.distributed.is_initialized():
            torch.distributed.init_process_group(
                backend="gloo",
                rank=int(os.environ.get("RANK", "0")),
                world_size=int(os.environ.get("WORLD_SIZE", "1")),
                timeout=timedelta(hours=1),
                init_method=os.environ.get("DIST_INIT_METHOD"),
            )
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False
