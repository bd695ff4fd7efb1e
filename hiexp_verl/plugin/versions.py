"""The versions of the HEK that a training plays with, and what a checkpoint keeps of its loop (`plugin.loop`)."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.store import HEK
from hiexp_verl.ledger.drift import Span
from hiexp_verl.plugin.guards import Guards


class Version(NamedTuple):
    """A version of the HEK."""

    path: str
    content_hash: str


class Versions(NamedTuple):
    """What an episode may be shown of."""

    incumbent: Version
    candidate: Version | None = None

    def stamp(self) -> str:
        """Return the text that travels with a batch."""
        return json.dumps(self)

    @classmethod
    def of(cls, stamp: str | None) -> "Versions | None":
        """Return what a batch was stamped with; None where it was not."""
        if not stamp:
            return None
        incumbent, candidate = json.loads(stamp)
        return cls(Version(*incumbent), Version(*candidate) if candidate else None)


def opened(version: Version) -> HEK:
    """Return the HEK of a version, whole and as it was.

    Raises:
        HiExpError: it is gone, damaged, or another one.
    """
    hek = HEK.load(Path(version.path))
    if hek.header.content_hash != version.content_hash:
        raise HiExpError(f"HEK {version.path} is not the version that was made there (its content hash differs)")
    return hek


@dataclass
class LoopState:
    """What a checkpoint keeps of the loop."""

    incumbent: Version
    previous: Version | None = None  # in use before
    changed_since: tuple[str, ...] = ()  # content ids that came or went with the incumbent
    published: int = 0  # step from which on the incumbent is in use; 0: since the start
    candidate: Version | None = None
    only_removes: bool = False
    changed: tuple[str, ...] = ()  # content ids that came or went with the candidate
    tested_from: int = 0
    started: int | None = None  # step after which the builder was started; None: it is not at work
    rejected: tuple[str, ...] = ()  # content ids that are not to come again, or not to leave the incumbent
    spans: tuple[Span, ...] = ()  # one for each publication, the last that of the incumbent
    guards: Guards = field(default_factory=Guards)
    last_proposal: int = 0  # step of the last proposal
    silent: int = 0  # proposals in a row that came to nothing
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("proposed", "accepted", "rejected", "failures", "held"), 0))

    def to_json(self) -> dict[str, Any]:
        """Return the state as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "LoopState":
        """Return the state that `to_json` wrote."""
        found = {each.name: values[each.name] for each in fields(cls)}
        for name in ("incumbent", "previous", "candidate"):
            found[name] = Version(*found[name]) if found[name] else None
        found |= {name: tuple(found[name]) for name in ("changed_since", "changed", "rejected")}
        return cls(**{**found, "spans": tuple(Span(**each) for each in found["spans"]), "guards": Guards(**found["guards"])})
