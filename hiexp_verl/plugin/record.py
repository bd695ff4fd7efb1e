"""The manifest of a training: its whole configuration, and where its metrics, episodes and checkpoints lie."""

import os
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.opening import pinned
from hiexp_verl.io.files import only_one
from hiexp_verl.io.manifest import Manifest, read_manifest
from hiexp_verl.plugin.agent_loop import settings_of
from hiexp_verl.plugin.checkpoint import folder_to_resume


class Record(Callback):
    """Writes `run.json` into trainer.default_local_dir: in the driver, before Ray starts and when the run ends, with every trainer."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the manifest of a run that passed the checks."""
        self._folder, self._started = Path(config.trainer.default_local_dir).expanduser(), time.monotonic()
        self._held = ExitStack()
        try:
            self._held.enter_context(only_one(self._folder))
        except HiExpError as error:
            sys.exit(f"hiexp: {error}")
        self._manifest = manifest_of(config, self._folder)
        self._manifest.write(self._folder)

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Add the seconds, and the last line of the error that ended the run."""
        with self._held:
            self._end(kwargs["job_return"])

    def _end(self, job_return: JobReturn) -> None:
        self._manifest.seconds = round(self._manifest.seconds + time.monotonic() - self._started, 3)
        if job_return.status is JobStatus.COMPLETED:
            return self._manifest.finish(self._folder)
        self._manifest.error = (str(job_return._return_value).strip().splitlines() or ["failed"])[-1][:500]
        return self._manifest.write(self._folder)


def manifest_of(config: DictConfig, folder: Path) -> Manifest:
    """Return the manifest of this run; a resumed run continues the manifest of the runs before."""
    settings = pinned(settings_of(config))
    spec = OmegaConf.to_container(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]), resolve=True)
    manifest = Manifest(kind="training", spec=dict(spec), results={"checkpoints": ["."]})  # type: ignore[arg-type]
    if folder_to_resume(config) is not None:
        with suppress(HiExpError):  # a run without a manifest
            before = read_manifest(folder)
            manifest.begun, manifest.seconds, manifest.results = before.begun, before.seconds, before.results
    for name, path in (("metrics", _metrics_file(config)), ("episodes", settings.dump_dir)):
        places = manifest.results.get(name, [])
        if path is not None and (place := os.path.relpath(Path(path).expanduser(), folder)) not in places:
            manifest.results[name] = [*places, place]
    manifest.outcome = {"hek": settings.hek_hash, "hek_path": settings.hek} if settings.hek_hash else {}
    return manifest


def _metrics_file(config: DictConfig) -> str | None:
    """Return the file of verl's file logger, None where it is off."""
    trainer = config.trainer
    if "file" not in trainer.logger:
        return None
    root = os.environ.get("VERL_FILE_LOGGER_ROOT", ".")
    return os.environ.get("VERL_FILE_LOGGER_PATH") or f"{root}/{trainer.project_name}/{trainer.experiment_name}.jsonl"
