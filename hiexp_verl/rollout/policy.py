"""Which weights a `--model` means: a server, a model directory, or a checkpoint as verl leaves it."""

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hiexp_verl.errors import HiExpError, first_line
from hiexp_verl.io.files import digest_of, fingerprint, make_folder
from hiexp_verl.text import without_credentials

logger = logging.getLogger(__name__)

MARKER = "latest_checkpointed_iteration.txt"  # verl writes it when a checkpoint is whole
STATE = Path("hiexp") / "state.json"  # ours, in a checkpoint (`plugin.checkpoint`)
EVENTS = "hek_loop.jsonl"  # what the loop of a training did, beside its checkpoints (`plugin.loop`)
MERGED = "policy"  # in the output directory
_ADAPTER = "lora_adapter"  # in verl's merged weights of a LoRA run, beside those of the base model
_SOURCE = "merged_from.txt"  # in the merged weights: the identity of the shards
_WEIGHTS = ("*.safetensors", "*.bin")
_BESIDE = ("*.json", "*.jinja")  # config, tokenizer and chat template
_LORA = "lora_train_meta.json"  # verl writes it for a LoRA run alone
_SHARDS = "model_world_size_*_rank_*.pt"


class Policy(NamedTuple):
    """The model of a `--model`."""

    spec: str  # for `chat.open_model`
    name: str  # "": that of the directory, or the server's
    identity: str  # differs from others of that name: the server's address, or a hash of the weights


def find_policy(spec: str, out_dir: Path) -> Policy:
    """Return the policy of a `--model`.

    A checkpoint of verl is the directory that holds them (then the latest), its `global_step_N`, or `actor` in it. Weights in
    FSDP's shards alone are merged by verl into `out_dir`/policy.

    Raises:
        HiExpError: the checkpoint has no weights of a policy, or they cannot be merged.
    """
    actor = _actor_of(spec)
    if actor is None:
        return Policy(spec, "", identify(spec))
    name = f"{actor.parent.parent.parent.name}/{actor.parent.name}"
    exported = actor / "huggingface"
    # verl's export of a LoRA run has peft's names of weights, which no engine loads: its shards are merged.
    if any(path for pattern in _WEIGHTS for path in exported.glob(pattern)) and not (actor / _LORA).is_file():
        return Policy(str(exported), name, identify(str(exported)))
    if not any(actor.glob(_SHARDS)):
        whole = " of a run without LoRA" if (actor / _LORA).is_file() else ""
        raise HiExpError(f"{actor} has no weights: found neither {exported}/*.safetensors{whole} nor {_SHARDS}; give another checkpoint")
    identity = _hash_of(*actor.glob(_SHARDS), *(path for pattern in _BESIDE for path in exported.glob(pattern)))
    merged = out_dir / MERGED
    source = merged / _SOURCE
    if merged.exists() and not source.is_file():
        raise HiExpError(f"{merged} exists and was not written by hiexp; remove it or choose another --out")
    if not (source.is_file() and source.read_text(encoding="utf-8", errors="replace") == identity):
        _merge(actor, merged, identity)
    return Policy(str(merged), name, identity)


def identify(spec: str) -> str:
    """Return the identity of a server or a model directory: the address without credentials, or a hash of the content."""
    if "://" in spec:
        return without_credentials(spec.removeprefix("openai:").partition("#")[0]).rstrip("/")
    folder = Path(spec.removeprefix("vllm:"))
    return _hash_of(*(path for pattern in (*_WEIGHTS, *_BESIDE) for path in folder.glob(pattern)))


def state_of(spec: str) -> Path | None:
    """Return the state file of HiExp in a checkpoint, None if `spec` is another model."""
    actor = _actor_of(spec)
    return actor.parent / STATE if actor is not None and (actor.parent / STATE).is_file() else None


def identity_in(state: Path) -> Mapping[str, Any]:
    """Return the settings of a training from its state file, by the names of `identity_of` and `played_of` in `plugin.checkpoint`.

    Raises:
        HiExpError: the file is damaged.
    """
    try:
        found = json.loads(state.read_text(encoding="utf-8"))
        return {**found["played"], **found["identity"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HiExpError(f"{state} is damaged ({first_line(error)}); give another checkpoint") from error


def _hash_of(*files: Path) -> str:
    return digest_of(sorted((path.name, fingerprint(path)) for path in files)).hex()


def _actor_of(spec: str) -> Path | None:
    """Return the actor's directory of a checkpoint; None for a model directory or a server."""
    path = Path(spec.removeprefix("vllm:"))
    if "://" in spec:
        return None
    if (path / MARKER).is_file():
        path = path / f"global_step_{(path / MARKER).read_text(encoding='utf-8', errors='replace').strip()[:20]}"
    if (path / "actor").is_dir():
        path = path / "actor"
    if path.name == "huggingface" and (path.parent.name == "actor" or any(path.parent.glob(_SHARDS))):
        path = path.parent
    return path if any(path.glob(_SHARDS)) or (path / "huggingface").is_dir() else None


def _merge(actor: Path, merged: Path, identity: str) -> None:
    """Merge the shards by verl into `merged`, which appears only when it is complete."""
    make_folder(merged.parent)
    target = merged.with_name(f".{merged.name}")
    shutil.rmtree(target, ignore_errors=True)
    command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp", "--local_dir", str(actor)]
    logger.info("merging the shards of %s into %s", actor, merged)
    done = subprocess.run([*command, "--target_dir", str(target)], capture_output=True, text=True, check=False)
    if done.returncode:
        fault = (done.stderr.strip().splitlines() or ["no output"])[-1][:300]
        raise HiExpError(f"verl could not merge the shards of {actor} ({fault}); see `python -m verl.model_merger --help`")
    if (target / _ADAPTER).is_dir():
        _merge_adapter(target / _ADAPTER, target)
    (target / _SOURCE).write_text(identity, encoding="utf-8")
    shutil.rmtree(merged, ignore_errors=True)
    target.rename(merged)


def _merge_adapter(adapter: Path, model_dir: Path) -> None:
    """Add a LoRA adapter to the weights in the model directory."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    if not json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["lora_alpha"]:
        raise HiExpError(f"the checkpoint's {_LORA} has no lora_alpha, without which its adapter has no weight; set it there")
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype="auto")
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(model_dir)
