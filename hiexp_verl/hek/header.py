"""The header of a HEK: what one must know of it before using it."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hiexp_verl.encoder import EncoderIdentity
from hiexp_verl.errors import HiExpError

FORMAT = 2


@dataclass(frozen=True)
class Header:
    """Where a HEK comes from and which encoder and thresholds it needs."""

    encoder: EncoderIdentity
    thresholds: dict[str, float] = field(default_factory=dict)  # cosines and heights valid for this encoder only; see `calibrate`
    distiller: str = ""  # "rules", or the model that wrote the entries
    models: tuple[str, ...] = ()  # the policies whose trajectories were distilled
    prompts: dict[str, str] = field(default_factory=dict)  # prompt file -> sha256
    counts: dict[str, int] = field(default_factory=dict)  # what the build used and left out, and why
    near_duplicates: dict[str, tuple[str, ...]] = field(default_factory=dict)  # question id -> ids of questions that ask the same
    parents: tuple[str, ...] = ()  # content hashes of the versions that this one was made from
    reason: str = ""  # why it was made from them: the edit, the removal, the merge
    format: int = FORMAT
    content_hash: str = ""  # set by `save`, checked by `load`


def header_text(header: Header) -> str:
    """Return the header as it stands in header.json."""
    return json.dumps(asdict(header), ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def read_header(folder: Path) -> Header:
    """Read header.json.

    Raises:
        HiExpError: missing, not JSON, of another format version, or with missing or unknown keys.
    """
    path = folder / "header.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise HiExpError(f"{path} does not exist; the HEK is incomplete, build it again") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise HiExpError(f"{path} is damaged ({error}); restore it or build the HEK again") from error
    found = values.get("format") if isinstance(values, dict) else None
    if found != FORMAT:
        raise HiExpError(f"{path} has the format version {found!r}, this program reads {FORMAT}; build the HEK again with this program")
    try:
        return _header_from(values)
    except (TypeError, KeyError, AttributeError) as error:
        raise HiExpError(f"{path} lacks a field or has an unknown one ({error}); restore it or build the HEK again") from error


def _header_from(values: dict[str, Any]) -> Header:
    values = dict(values)
    encoder = EncoderIdentity(**values.pop("encoder"))
    duplicates = {key: tuple(ids) for key, ids in values.pop("near_duplicates").items()}
    models, parents = tuple(values.pop("models")), tuple(values.pop("parents"))
    return Header(encoder=encoder, models=models, parents=parents, near_duplicates=duplicates, **values)
