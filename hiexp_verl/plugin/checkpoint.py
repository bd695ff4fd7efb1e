"""Our state in a checkpoint, `global_step_N/hiexp/state.json` beside verl's files: what a resumed run needs and must match.

verl writes `latest_checkpointed_iteration.txt` last, and resumes from the step that it names. Our state is written before
verl's files, so every checkpoint that verl resumes from has one.
"""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hiexp_verl.config import CreditConfig, HiExpConfig
from hiexp_verl.domains import domain_named
from hiexp_verl.domains.domain import UNMARKED
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.store import HEK, root_of
from hiexp_verl.io.files import atomic_writer, digest_of, fingerprint
from hiexp_verl.io.manifest import software
from hiexp_verl.ledger.rows import LEDGER
from hiexp_verl.plugin.dataset import paths_of
from hiexp_verl.rollout.policy import MARKER, STATE
from hiexp_verl.settings import block_of

logger = logging.getLogger(__name__)

FORMAT = 7
WATCHED = ("counters", "history", "expectation", "triggered")  # of `Watch.state`
_ROLLOUT = "actor_rollout_ref.rollout"
_TURNS = ("format", "max_assistant_turns", "max_parallel_calls", "max_tool_response_length")
_PLAYED = (
    *(f"{_ROLLOUT}.{name}" for name in ("n", "temperature", "top_p", "response_length")),
    *(f"{_ROLLOUT}.multi_turn.{name}" for name in _TURNS),
)


def identity_of(settings: HiExpConfig, hek: HEK | None, config: DictConfig) -> dict[str, Any]:
    """Return the settings that a resumed run must share with its checkpoint: HEK, corpus, questions, how episodes are played.

    By dotted name of the setting in verl's config, or in `hiexp:`. A file is compared by its content, since it may have moved.
    """
    distil = {"distil": block_of(settings.distil)} if settings.distil.every else {}
    if not settings.enabled:
        return {"enabled": False, "seed": settings.seed, **distil}
    return {
        **played_of(settings, config),
        "data.train_files": [_content_of(file) for file in paths_of(config.data.train_files)],
        "search.corpus": _content_of(settings.search.corpus) if settings.search.corpus else None,
        "enabled": True,
        "hek": hek.header.content_hash if hek is not None else None,
        "arm": settings.arm,
        "leave_one_out": settings.leave_one_out,
        "prompt": block_of(settings.prompt),
        "tool": block_of(settings.tool),
        "group": block_of(settings.group),
        "ledger": block_of(settings.ledger),
        "loop": block_of(settings.loop),
        "reward": block_of(settings.reward),
        **({"credit": block_of(settings.credit)} if settings.credit != CreditConfig() else {}),
        **distil,
        "seed": settings.seed,
    }


def played_of(settings: HiExpConfig, config: DictConfig) -> dict[str, Any]:
    """Return how episodes are played, with or without HiExp; `rollout.as_trained` evaluates the checkpoint in the same way."""
    return {
        **domain_named(settings.domain).mark,
        **{name: OmegaConf.select(config, name) for name in _PLAYED},
        "search": {name: getattr(settings.search, name) for name in ("engine", "top_k", "max_words_per_passage", "max_chars")},
        "max_tokens_per_turn": settings.max_tokens_per_turn if settings.enabled else None,  # a turn of verl's agent has no limit
    }


def _content_of(file: str) -> str:
    path = Path(file).expanduser()
    return fingerprint(path) if path.is_file() else file  # a remote file


def ledger_of(settings: HiExpConfig, config: DictConfig) -> Path | None:
    """Return the file of this run in the ledger of its HEK, None where there is none. A resumed run has the same."""
    if not (settings.enabled and settings.hek and settings.ledger.enabled):
        return None
    folder = str(Path(config.trainer.default_local_dir).expanduser().absolute())
    name = re.sub(r"[^\w-]+", "-", str(config.trainer.experiment_name))[:60]
    return root_of(Path(settings.hek)) / LEDGER / f"{name}-{digest_of(folder).hex()[:8]}.jsonl"


def save_state(
    folder: Path,
    identity: Mapping[str, Any],
    played: Mapping[str, Any],
    hek_path: str | None,
    watched: Mapping[str, Any],
    loop: Mapping[str, Any] | None = None,
) -> None:
    """Write the state of the checkpoint in a folder `global_step_N`, atomically."""
    state = {"format": FORMAT, "step": int(folder.name.rpartition("_")[2]), "hek_path": hek_path, "software": software()}
    state |= {"identity": identity, "played": played, "watched": watched, "loop": loop}
    (folder / STATE).parent.mkdir(parents=True, exist_ok=True)
    with atomic_writer(folder / STATE) as file:
        file.write(json.dumps(state, indent=1) + "\n")


def load_state(folder: Path, identity: Mapping[str, Any], allow_mismatch: bool) -> dict[str, Any] | None:
    """Return the monitor's state in this checkpoint, None if there is none of this run and the run may go on without.

    Raises:
        HiExpError: the state is damaged; or it is missing or of a run with another identity, and `allow_mismatch` is off.
    """
    way_out = "hiexp.allow_mismatch=true resumes nevertheless"
    path = folder / STATE
    if not path.is_file():
        if allow_mismatch or not identity["enabled"]:
            return None
        raise HiExpError(f"the checkpoint {folder} was made without HiExp: it has no {STATE}; {way_out}")
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        if state["format"] != FORMAT:
            raise HiExpError(f"{path} has format {state['format']}, this version reads {FORMAT}; resume with the version that wrote it")
        found, watched = state["identity"], {name: state["watched"][name] for name in WATCHED}
    except (ValueError, KeyError, TypeError) as error:
        raise HiExpError(f"{path} is damaged ({type(error).__name__}: {error}); resume from an earlier checkpoint") from error
    for key in dict.fromkeys((*identity, *found)):
        if found.get(key) != identity.get(key) and not allow_mismatch:
            was, now = _shown(key, found.get(key), state.get("hek_path")), _shown(key, identity.get(key))
            setting = key if key in ("data.train_files", *_PLAYED) else f"hiexp.{key}"
            raise HiExpError(f"the checkpoint {folder} was made with {setting}={was}, this run has {now}; set the same, or {way_out}")
    if found != identity:
        logger.warning("the checkpoint %s is of a run with other settings; its counters and its window of metrics are not used", folder)
        return None
    return watched


def load_loop(folder: Path) -> dict[str, Any] | None:
    """Return what a checkpoint, whose state `load_state` has read, keeps of the loop; None: it had none."""
    return json.loads((folder / STATE).read_text(encoding="utf-8"))["loop"]


def folder_to_resume(config: DictConfig) -> Path | None:
    """Return the checkpoint that verl will resume from, None when it starts from scratch.

    verl empties the marker before it writes it, so a kill in between leaves an empty marker. Everything else is written by
    then, and the marker is set to the newest checkpoint. Without the folder that the marker names, verl would silently start over.

    Raises:
        HiExpError: the marker names a checkpoint that does not exist, or does not hold a number.
    """
    trainer = config.trainer
    if trainer.resume_mode == "disable":
        return None
    if trainer.resume_mode == "resume_path":
        given = str(trainer.resume_from_path)
        folder = Path(given)
        if not (folder / "actor").is_dir():
            raise HiExpError(f"trainer.resume_from_path={given} has no {folder}/actor; give a checkpoint folder, .../global_step_N")
        if not given.rpartition("global_step_")[2].isdigit():  # verl reads the number of the step there
            raise HiExpError(f"trainer.resume_from_path={given} must end in global_step_N; correct the path, or rename the folder")
        return folder
    root = Path(trainer.default_local_dir)
    marker = root / MARKER
    if not marker.is_file():
        return None
    text = marker.read_text(encoding="utf-8", errors="replace").strip() or _repaired(marker)
    folder = root / f"global_step_{text}"
    if not text.isdigit() or not (folder / "actor").is_dir():
        raise HiExpError(
            f"{marker} names step {text[:20]!r}, but {folder}/actor is not there; set trainer.resume_mode=resume_path and "
            "trainer.resume_from_path to a complete checkpoint, or trainer.resume_mode=disable to start over"
        )
    return folder


def _repaired(marker: Path) -> str:
    """Set an empty marker to the newest complete checkpoint; return its step."""
    steps = [int(path.name.removeprefix("global_step_")) for path in marker.parent.glob("global_step_*") if (path / "data.pt").is_file()]
    if not steps:
        raise HiExpError(f"{marker} is empty and there is no complete checkpoint beside it; delete it to start over")
    with atomic_writer(marker) as file:
        file.write(str(max(steps)))
    logger.warning("%s was empty; it now names step %d, the newest checkpoint", marker, max(steps))
    return str(max(steps))


def _shown(key: str, value: Any, path: str | None = None) -> str:
    if key == "domain":
        return str(value or UNMARKED)
    return f"{value[:12]}{f' ({path})' if path else ''}" if key == "hek" and isinstance(value, str) else str(value)
