"""Which weights a `--model` means: a server, a model directory, or a checkpoint as verl leaves it."""

import logging
import shutil
import subprocess
import sys
from pathlib import Path

from hiexp_verl.errors import HiExpError

logger = logging.getLogger(__name__)

MARKER = "latest_checkpointed_iteration.txt"  # verl writes it when a checkpoint is whole
_WEIGHTS = ("*.safetensors", "*.bin")
_SHARDS = "model_world_size_*_rank_*.pt"


def find_policy(spec: str, out_dir: Path) -> tuple[str, str]:
    """Return what `llm.open_model` takes, and the policy's name ("" where the server tells it).

    A checkpoint of verl is the directory that holds them (then the latest), its `global_step_N`, or `actor` in it. Weights that
    are there only in FSDP's shards are merged by verl into `out_dir`/policy.

    Raises:
        HiExpError: the checkpoint has no weights of a policy, or they cannot be merged.
    """
    actor = _actor_of(Path(spec)) if "://" not in spec else None
    if actor is None:
        return spec, ""
    step = actor.parent
    name = f"{step.parent.parent.name}/{step.name}"
    exported = actor / "huggingface"
    if any(path for pattern in _WEIGHTS for path in exported.glob(pattern)):
        return str(exported), name
    if not any(actor.glob(_SHARDS)):
        raise HiExpError(f"{actor} has no weights: found neither {exported}/*.safetensors nor {_SHARDS}; give another checkpoint")
    merged = out_dir / "policy"
    if not (merged / step.name).is_file():
        _merge(actor, merged, step.name)
    return str(merged), name


def _actor_of(path: Path) -> Path | None:
    """Return the actor's directory where the path is verl's, None where it is a model's own."""
    if (path / MARKER).is_file():
        path = path / f"global_step_{(path / MARKER).read_text(encoding='utf-8').strip()}"
    if (path / "actor").is_dir():
        path = path / "actor"
    if path.name == "huggingface" and any(path.parent.glob(_SHARDS)):
        path = path.parent
    return path if any(path.glob(_SHARDS)) or (path / "huggingface").is_dir() else None


def _merge(actor: Path, target: Path, mark: str) -> None:
    """Have verl merge the shards; a marker says that it was done in full."""
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp", "--local_dir", str(actor)]
    logger.info("merging the shards of %s into %s", actor, target)
    done = subprocess.run([*command, "--target_dir", str(target)], capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no output"])[-1][:300]
        raise HiExpError(f"verl could not merge the shards of {actor} ({said}); see `python -m verl.model_merger --help`")
    (target / mark).touch()
