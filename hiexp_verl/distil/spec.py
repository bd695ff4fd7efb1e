"""`build`: trajectories in, a HEK out, with the encoder, the distiller and the folder by name (`pipeline.distil` is the method)."""

import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from pydantic import SkipValidation

from hiexp_verl.distil.cluster import Linkage, threshold_of
from hiexp_verl.distil.distillers import Distiller, open_distiller, split_spec
from hiexp_verl.distil.pipeline import Built, DistilSettings, Map, distil, one_by_one
from hiexp_verl.distil.replies import REPLIES, Price, check_stored_replies, count_replies, finished_replies
from hiexp_verl.domains import Domain, domain_named
from hiexp_verl.domains.domain import UNMARKED
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.opening import remember_encoder
from hiexp_verl.hek.store import HEK
from hiexp_verl.io.datasets import read_trajectories
from hiexp_verl.io.files import locked, only_one
from hiexp_verl.io.manifest import Manifest, now
from hiexp_verl.models.chat import MAX_MODEL_LEN
from hiexp_verl.models.encoder import Encoder, load_encoder
from hiexp_verl.settings import Count, Flag, settings
from hiexp_verl.types import LEVELS, Level, Trajectory

Trajectories = str | Path | Iterable[str | Path] | Iterable[Trajectory]


@settings()
class BuildSpec(DistilSettings):
    """The options of `hiexp build`.

    Raises:
        HiExpError: an option is unknown, of the wrong type or out of range, or `out` is a file.
    """

    trajectories: SkipValidation[Trajectories]
    encoder: SkipValidation[str | Encoder]  # directory, name, or an open one
    # "rules", "vllm:DIR", "vllm-local:DIR", "openai:URL#MODEL", "files:DIR", or an open one
    distiller: SkipValidation[str | Distiller] = "rules"
    out: str | Path | None = None  # the folder of the HEK, which gets a new version; None: it is not saved
    calibrated: str | Path | None = None  # cluster at the heights of this HEK
    ray: str | None = None  # address of a Ray cluster to diagnose and encode on
    domain: str = "search"  # of the trajectories, by `domains.domain_named`; an open distiller has its own
    other_domain: Flag = False  # trajectories may be of another domain
    resume: Flag = False  # use the stored answers of an interrupted build
    concurrency: Count | None = None  # requests in flight
    max_model_len: Count = MAX_MODEL_LEN
    price: Price | None = None

    def __post_init__(self) -> None:
        if self.out is not None and Path(self.out).exists() and not Path(self.out).is_dir():
            raise HiExpError(f"out: {self.out} is a file; give a directory for the HEK")
        if self.ray is not None and not isinstance(self.encoder, str):
            raise HiExpError("ray opens a copy of the encoder on each CPU; give the encoder as a directory or name")

    @property
    def asks_a_model(self) -> bool:
        """Whether a model writes answers that are stored beside the HEK."""
        return isinstance(self.distiller, str) and split_spec(self.distiller)[0] not in ("rules", "files")

    def read(self) -> list[Trajectory]:
        """Return the trajectories.

        Raises:
            HiExpError: see `read_trajectories`.
        """
        given = [self.trajectories] if isinstance(self.trajectories, str | Path) else list(self.trajectories)
        paths = [Path(each) for each in given if isinstance(each, str | Path)]
        return [*read_trajectories(*paths), *(each for each in given if isinstance(each, Trajectory))]

    def with_heights(self) -> "BuildSpec":
        """Return the options with the heights of the calibrated HEK.

        Raises:
            HiExpError: it has none of this linkage.
        """
        return self if self.calibrated is None else replace(self, heights=_heights(Path(self.calibrated), self.linkage))

    def described(self) -> dict[str, Any]:
        """Return the options for `run.json`; objects in place of names are named."""
        given = self.trajectories if isinstance(self.trajectories, list | tuple) else [self.trajectories]
        return {each.name: getattr(self, each.name) for each in fields(self)} | {
            "trajectories": [str(each) for each in given if isinstance(each, str | Path)],
            "encoder": self.encoder if isinstance(self.encoder, str) else self.encoder.identity.name,
            "distiller": self.distiller if isinstance(self.distiller, str) else self.distiller.name,
        }


def build(
    trajectories: Trajectories,
    encoder: str | Encoder,
    distiller: str | Distiller = "rules",
    out: str | Path | None = None,
    **options: Any,
) -> Built:
    """Distil trajectories into a HEK of three levels: cases (E1), plans of kinds of questions (E2), strategies (E3).

    Args:
        trajectories: a file, several, or the trajectories themselves; of a question, some that succeeded and some that failed.
        encoder: a sentence-transformers directory or name, or an `Encoder`. Titles become float32 unit vectors (E, D).
        distiller: who writes the entries: "rules" (templates, no model), another of `BuildSpec.distiller`, or a `Distiller`.
        out: where the HEK is saved as a new version, with `run.json` beside the versions; None: it is only returned.
        options: the other fields of `BuildSpec`, such as `success_at=0.8` or `cluster_size=6`.

    Raises:
        HiExpError: an option is unknown or out of range; trajectories, encoder or distiller cannot be used; stored answers of an
            interrupted build are there and `resume` is not set; no experience came out.
    """
    return run_build(BuildSpec(trajectories, encoder, distiller, out, **options))


def run_build(spec: BuildSpec) -> Built:
    """Build what the spec says, and save it where it names a folder.

    Raises:
        HiExpError: see `build`.
    """
    begun, started = now(), time.monotonic()
    trajectories, settings = spec.read(), spec.with_heights()
    out = Path(spec.out) if spec.out is not None else None
    # Two builds at once would write over each other's answers, which may have been paid for.
    with only_one(out, REPLIES) if out is not None and spec.asks_a_model else nullcontext():
        if out is not None and spec.asks_a_model and not spec.resume:
            check_stored_replies(out)
        encoder, map_contrasts = _encoder_and_map(spec)
        with _distiller(spec) as distiller:
            if not spec.other_domain:
                check_domain(trajectories, distiller.domain)
            built = distil(trajectories, distiller, encoder, settings, map_contrasts)
        if out is None:
            return built
        version = built.hek.save(out)
        if isinstance(spec.encoder, str):
            remember_encoder(out, spec.encoder)
        seconds = round(time.monotonic() - started, 3)
        manifest = Manifest(kind="build", spec=spec.described(), begun=begun, seconds=seconds, results={"hek": [version.name]})
        answers = count_replies(out) if spec.asks_a_model else finished_replies(out)
        with locked(out):  # beside the versions: it describes this run, a resumed build takes less than a whole one
            manifest.finish(out, **built.outcome(spec.price), answers=answers)
        return replace(built, version=version)


def check_domain(trajectories: Sequence[Trajectory], domain: Domain) -> None:
    """Refuse trajectories of another domain, which would be read as those of this one.

    Raises:
        HiExpError: there are some.
    """
    others = [str(found) for t in trajectories if (found := t.extra.get("domain", UNMARKED)) != domain.name]
    if others:
        fault = f"{len(others)} of {len(trajectories)} trajectories are of the domain {others[0]}, the build is of {domain.name}"
        raise HiExpError(f"{fault}; give --domain as they were rolled out, or read them nevertheless (--other-domain)")


def _heights(path: Path, linkage: Linkage) -> dict[Level, float]:
    """Return the heights that the HEK keeps for this linkage, by the level that is clustered."""
    thresholds = HEK.load(path).header.thresholds
    heights: dict[Level, float] = {level: thresholds[name] for level in LEVELS if (name := threshold_of(level, linkage)) in thresholds}
    if not heights:
        found = ", ".join(name for name in thresholds if name.endswith("_max_height")) or "none"
        todo = f"give the linkage of these, or run `hiexp calibrate {path} --linkage {linkage}` first, or leave --calibrated out"
        raise HiExpError(f"HEK {path} has no heights of {linkage} linkage, found {found}; {todo}")
    return heights


def _encoder_and_map(spec: BuildSpec) -> tuple[Encoder, Map]:
    """Return the encoder and what maps contrasts: in this process, or on a Ray cluster."""
    if not isinstance(spec.encoder, str):
        return spec.encoder, one_by_one
    if spec.ray is None:
        return load_encoder(spec.encoder), one_by_one
    from hiexp_verl.distil.ray import RayEncoder, connect, ray_map

    connect(spec.ray)
    return RayEncoder(spec.encoder), ray_map


def _distiller(spec: BuildSpec) -> AbstractContextManager[Distiller]:
    if not isinstance(spec.distiller, str):
        return nullcontext(spec.distiller)
    cache = Path(spec.out) / REPLIES if spec.out is not None else None
    return open_distiller(spec.distiller, cache, spec.resume, spec.max_model_len, spec.concurrency, domain_named(spec.domain))
