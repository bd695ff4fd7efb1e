"""Which weights a `--model` means: a server, a model directory, or a checkpoint as verl leaves it."""

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from hiexp_verl.errors import HiExpError, first_line
from hiexp_verl.io.files import digest_of, fingerprint, make_folder

logger = logging.getLogger(__name__)

MARKER = "latest_checkpointed_iteration.txt"  # verl writes it when a checkpoint is whole
STATE = Path("hiexp") / "state.json"  # ours, in a checkpoint (`plugin.checkpoint`)
MERGED = "policy"  # in the output directory
_ADAPTER = "lora_adapter"  # in what verl merges of a LoRA run, beside the weights that it started from
_SOURCE = "merged_from.txt"  # in the merged weights: the identity of the shards
_WEIGHTS = ("*.safetensors", "*.bin")
_BESIDE = ("*.json", "*.jinja")  # what else decides on what a model says: its config, tokenizer and chat template
_LORA = "lora_train_meta.json"  # verl writes it for a LoRA run alone
_SHARDS = "model_world_size_*_rank_*.pt"


class Policy(NamedTuple):
    """What plays."""

    spec: str  # what `chat.open_model` takes
    name: str  # "" where the server or the directory tells it
    identity: str  # what tells it from others of that name: the server's address, or a hash of the weights


def find_policy(spec: str, out_dir: Path) -> Policy:
    """Return the policy that is meant.

    A checkpoint of verl is the directory that holds them (then the latest), its `global_step_N`, or `actor` in it. Weights that
    are there only in FSDP's shards are merged by verl into `out_dir`/policy.

    Raises:
        HiExpError: the checkpoint has no weights of a policy, or they cannot be merged.
    """
    actor = _actor_of(spec)
    if actor is None:
        return Policy(spec, "", identify(spec))
    name = f"{actor.parent.parent.parent.name}/{actor.parent.name}"
    exported = actor / "huggingface"
    # What verl exports of a LoRA run names its weights as peft does, which no engine loads; merging makes a model of them.
    if any(path for pattern in _WEIGHTS for path in exported.glob(pattern)) and not (actor / _LORA).is_file():
        return Policy(str(exported), name, identify(str(exported)))
    if not any(actor.glob(_SHARDS)):
        whole = " of a run without LoRA" if (actor / _LORA).is_file() else ""
        raise HiExpError(f"{actor} has no weights: found neither {exported}/*.safetensors{whole} nor {_SHARDS}; give another checkpoint")
    identity = _hash_of(*actor.glob(_SHARDS), *(path for pattern in _BESIDE for path in exported.glob(pattern)))
    merged = out_dir / MERGED
    if not _is_merged_from(identity, merged):
        _merge(actor, merged, identity)
    return Policy(str(merged), name, identity)


def identify(spec: str) -> str:
    """Return what tells a server or a model directory from another: the address without credentials, or a hash of the content."""
    if "://" in spec:
        url = urlsplit(spec.removeprefix("openai:"))
        return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path.rstrip('/')}"
    folder = Path(spec.removeprefix("vllm:"))
    return _hash_of(*(path for pattern in (*_WEIGHTS, *_BESIDE) for path in folder.glob(pattern)))


def state_of(spec: str) -> Path | None:
    """Return what HiExp kept of the training that a checkpoint is of, None where `spec` is no such checkpoint."""
    actor = _actor_of(spec)
    return actor.parent / STATE if actor is not None and (actor.parent / STATE).is_file() else None


def identity_in(state: Path) -> Mapping[str, Any]:
    """Return the settings of a training from what `state_of` found, by the names of `plugin.checkpoint`'s identity_of and played_of.

    Raises:
        HiExpError: the file is damaged.
    """
    try:
        found = json.loads(state.read_text(encoding="utf-8"))
        identity, played = found["identity"], found.get("played", {})  # what was played stands beside it since 2026-11-22
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HiExpError(f"{state} is damaged ({first_line(error)}); give another checkpoint") from error
    for name, value in {"identity": identity, "played": played}.items():
        if not isinstance(value, dict):
            raise HiExpError(f"{state} is damaged (its {name} is {str(value)[:40]!r}); give another checkpoint")
    return {**played, **identity}


def _hash_of(*files: Path) -> str:
    return digest_of(sorted((path.name, fingerprint(path)) for path in files)).hex()


def _actor_of(spec: str) -> Path | None:
    """Return the actor's directory where the path is verl's, None where it is a model's own, or a server's address."""
    path = Path(spec.removeprefix("vllm:"))
    if "://" in spec:
        return None
    if (path / MARKER).is_file():
        path = path / f"global_step_{(path / MARKER).read_text(encoding='utf-8').strip()}"
    if (path / "actor").is_dir():
        path = path / "actor"
    if path.name == "huggingface" and (path.parent.name == "actor" or any(path.parent.glob(_SHARDS))):
        path = path.parent
    return path if any(path.glob(_SHARDS)) or (path / "huggingface").is_dir() else None


def _is_merged_from(identity: str, merged: Path) -> bool:
    source = merged / _SOURCE
    if merged.exists() and not source.is_file():
        raise HiExpError(f"{merged} is in the way of the merged weights; move it away, or give another --out")
    return source.is_file() and source.read_text(encoding="utf-8") == identity


def _merge(actor: Path, merged: Path, identity: str) -> None:
    """Have verl merge the shards; they are there in full or not at all."""
    make_folder(merged.parent)
    target = merged.with_name(f".{merged.name}")
    shutil.rmtree(target, ignore_errors=True)
    command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp", "--local_dir", str(actor)]
    logger.info("merging the shards of %s into %s", actor, merged)
    done = subprocess.run([*command, "--target_dir", str(target)], capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no output"])[-1][:300]
        raise HiExpError(f"verl could not merge the shards of {actor} ({said}); see `python -m verl.model_merger --help`")
    if (target / _ADAPTER).is_dir():
        _apply(target / _ADAPTER, target)
    (target / _SOURCE).write_text(identity, encoding="utf-8")
    shutil.rmtree(merged, ignore_errors=True)
    target.rename(merged)


def _apply(adapter: Path, model_dir: Path) -> None:
    """Add what was trained to the weights that it was trained on."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    if not json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["lora_alpha"]:
        raise HiExpError(f"the checkpoint's {_LORA} has no lora_alpha, without which its adapter has no weight; set it there")
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype="auto")
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(model_dir)
