"""Memory of the demo."""

import threading
from pathlib import Path
from types import TracebackType


class MemoryWatch:
    """The most memory in use on this machine above what was in use at the start; the stages are many processes."""

    def __init__(self, every: float = 0.5) -> None:
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._at_start = self._lowest = _available_gib()

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def peak_gib(self, earlier: float) -> float:
        """Return the peak in GiB, over this run and the earlier ones whose stages it reused."""
        return max(earlier, round(self._at_start - self._lowest, 2))

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            self._lowest = min(self._lowest, _available_gib())


def _available_gib() -> float:
    for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 2**20
    return 0.0
