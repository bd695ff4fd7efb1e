"""`hiexp build`.

What `hiexp build` does with its arguments."""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hiexp_verl.cli.options import MAX_MODEL_LEN_HELP, add_verb
from hiexp_verl.distil.cluster import LINKAGES, Linkage, threshold_of
from hiexp_verl.distil.distillers import PromptedDistiller, open_distiller, split_spec
from hiexp_verl.distil.dry_run import dry_run
from hiexp_verl.distil.pipeline import BuildConfig, BuildReport, Map, build, one_by_one
from hiexp_verl.distil.replies import Price, Usage, check_leftover, count_answers, finished_answers
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.opening import remember_encoder
from hiexp_verl.hek.store import HEK
from hiexp_verl.io.datasets import read_trajectories
from hiexp_verl.io.files import locked
from hiexp_verl.io.manifest import Manifest, now
from hiexp_verl.models.encoder import Encoder, load_encoder
from hiexp_verl.types import LEVELS, Level


def add_build(verbs: Any) -> None:
    """Add the verb."""
    epilog = (
        "distillers:  rules             templates over the diagnosis, no model\n"
        "             vllm:DIR          a model directory, served by vLLM here (the policy itself, or a teacher)\n"
        "             vllm-local:DIR    the same without a server: vLLM's offline generation\n"
        "             openai:URL#MODEL  any OpenAI-compatible server\n"
        "             files:DIR         answers computed before\n\n"
        "example: hiexp build --trajectories outputs/rollouts/trajectories.jsonl --distiller rules --encoder DIR --out hek\n\n"
        "before paying for answers, see what would be asked (the encoder runs, for the clusters):\n"
        "         hiexp build ... --distiller openai:https://HOST/v1#MODEL --dry-run --show 1 --price 0.15 0.60\n\n"
        "Killed, the same command with --resume goes on where it was and gives the same HEK; without it, the build refuses to\n"
        "throw the stored answers away: delete OUT/answers.jsonl to start anew. OUT/run.json tells what the last build used,\n"
        "left out, and took in calls, tokens and seconds."
    )
    parser = add_verb(verbs, "build", run_build, "Distil trajectories into a three-level HEK.", epilog)
    parser.add_argument("--trajectories", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--distiller", default="rules", metavar="KIND:PLACE", help="see below (default rules)")
    parser.add_argument("--encoder", required=True, help="sentence-transformers directory or name; hash:256 for a dry run")
    parser.add_argument("--out", type=Path, required=True, metavar="HEK", help="directory; each build adds an immutable version")
    parser.add_argument("--success-at", type=float, metavar="SCORE", help="score of a success (default: the trajectory's own mark)")
    parser.add_argument("--single-sided", action="store_true", help="reflect on questions without a success, too")
    parser.add_argument("--cases-per-question", type=int, default=2, metavar="N", help="E1 of one question, with different findings (2)")
    parser.add_argument("--linkage", default="ward", choices=("ward", "average"), help="of the clusters (default ward)")
    parser.add_argument("--cluster-size", type=float, default=4.0, help="E1 under an E2, on average (default 4)")
    parser.add_argument("--calibrated", type=Path, metavar="HEK", help="cluster at the heights of this HEK (see hiexp calibrate)")
    parser.add_argument("--confirm", action="store_true", help="ask the distiller of each member whether its summary holds for it")
    parser.add_argument("--ray", nargs="?", const="auto", metavar="ADDRESS", help="diagnose and encode on a running Ray cluster")
    parser.add_argument("--resume", action="store_true", help="use the answers that an interrupted build left")
    parser.add_argument("--dry-run", action="store_true", help="show prompts and the expected calls; ask no model, write nothing")
    parser.add_argument("--show", type=int, default=3, metavar="N", help="prompts that --dry-run shows in full (default 3)")
    parser.add_argument("--price", type=float, nargs=2, metavar=("IN", "OUT"), help="cost of a million prompt and completion tokens")
    concurrency = "requests in flight (default 256 with vllm:DIR, 32 with it on a CPU, 16 with openai:)"
    parser.add_argument("--concurrency", type=int, metavar="N", help=concurrency)
    parser.add_argument("--max-model-len", type=int, default=4096, help=MAX_MODEL_LEN_HELP)


def run_build(arguments: argparse.Namespace) -> int:
    """Build and print what was used and left out."""

    print(build_command(arguments))
    return 0


def build_command(arguments: argparse.Namespace) -> str:
    """Build a HEK from trajectory files, save it as a new version, return a summary.

    Raises:
        HiExpError: trajectories, encoder or distiller are not usable, an interrupted build left answers and is not resumed,
            or no experience came out.
    """
    out: Path = arguments.out
    begun, started = now(), time.monotonic()
    if out.exists() and not out.is_dir():
        raise HiExpError(f"--out {out} is a file; give a directory for the HEK")
    if arguments.concurrency is not None and arguments.concurrency < 1:
        raise HiExpError(f"--concurrency must be at least 1, found {arguments.concurrency}")
    price = Price(*arguments.price) if arguments.price else None
    trajectories = list(read_trajectories(*arguments.trajectories))
    config = config_of(arguments)
    if arguments.dry_run:
        return dry_run(trajectories, arguments.distiller, load_encoder(arguments.encoder), arguments.show, price, config)
    cache = out / "answers.jsonl"
    asks = split_spec(arguments.distiller)[0] not in ("rules", "files")  # only answers of models are kept in the cache
    if asks and not arguments.resume:
        check_leftover(out, cache)
    with (
        _where(arguments) as (encoder, map_contrasts),
        open_distiller(arguments.distiller, cache, arguments.resume, arguments.max_model_len, arguments.concurrency) as distiller,
    ):
        report = build(trajectories, distiller, encoder, config, map_contrasts)
    usage = distiller.usage if isinstance(distiller, PromptedDistiller) else None
    version = report.hek.save(out)
    remember_encoder(out, arguments.encoder)
    spec = {name: value for name, value in vars(arguments).items() if name not in ("verb", "overrides")}
    manifest = Manifest(kind="build", spec=spec, begun=begun, seconds=round(time.monotonic() - started, 3), results={"hek": [version.name]})
    answers = count_answers(cache) if asks else finished_answers(out)
    with locked(out):
        manifest.finish(out, **_outcome(report, usage, price), answers=answers)  # stored answers: see `check_leftover`
    levels = ", ".join(f"{count} {level.upper()}" for level, count in report.hek.levels.items())
    asked = f"\ndistiller: {usage.summary(price)}" if usage else ""
    return f"{report.summary()}{asked}\n{levels} in {version}"


def config_of(arguments: argparse.Namespace) -> BuildConfig:
    """Return the settings of a build that the arguments name.

    Raises:
        HiExpError: a number means nothing, or the calibrated HEK has no heights or none of this linkage.
    """
    if arguments.cases_per_question < 1:
        raise HiExpError(f"--cases-per-question must be at least 1, found {arguments.cases_per_question}")
    if not arguments.cluster_size >= 1:
        raise HiExpError(f"--cluster-size must be at least 1, found {arguments.cluster_size:g}")
    heights = _heights(arguments.calibrated, arguments.linkage) if arguments.calibrated else {}
    default = BuildConfig()
    return BuildConfig(
        success_at=arguments.success_at,
        single_sided=arguments.single_sided,
        cases_per_question=arguments.cases_per_question,
        confirm=arguments.confirm,
        pattern=replace(
            default.pattern,
            linkage=arguments.linkage,
            cluster_size=arguments.cluster_size,
            max_height=heights.get("e1"),
        ),
        strategy=replace(default.strategy, linkage=arguments.linkage, max_height=heights.get("e2")),
    )


def _heights(path: Path, linkage: Linkage) -> dict[Level, float]:
    """Return the heights that the HEK keeps for this linkage, by the level that is clustered."""
    thresholds = HEK.load(path).header.thresholds
    names: dict[Level, str] = {level: threshold_of(level, linkage) for level in LEVELS}
    heights: dict[Level, float] = {level: thresholds[name] for level, name in names.items() if name in thresholds}
    if not heights:
        others = [other for other in LINKAGES if any(threshold_of(level, other) in thresholds for level in LEVELS)]
        found = f"has heights of {others[0]} linkage, none of {linkage}" if others else "has no heights to cluster at"
        same = f"give --linkage {others[0]}, or " if others else ""
        todo = f"{same}run `hiexp calibrate {path} --linkage {linkage}` first, or leave --calibrated out"
        raise HiExpError(f"HEK {path} {found}; {todo}")
    return heights


@contextmanager
def _where(arguments: argparse.Namespace) -> Iterator[tuple[Encoder, Map]]:
    """Yield the encoder and how contrasts are mapped: in this process, or on a Ray cluster."""
    if arguments.ray is None:
        yield load_encoder(arguments.encoder), one_by_one
        return
    from hiexp_verl.distil.ray import RayEncoder, connect, ray_map

    connect(arguments.ray)
    encoder = RayEncoder(arguments.encoder)
    try:
        yield encoder, ray_map
    finally:
        encoder.close()


def _outcome(report: BuildReport, usage: Usage | None, price: Price | None) -> dict[str, Any]:
    """Return what this run counted. It describes the run, not the HEK: a build that was resumed took less than one that was not."""
    return {
        "levels": report.hek.levels,
        "counts": report.counts,
        "tool_fire_rate": report.tool_fire_rate,
        "usage": asdict(usage) if usage else None,
        "cost": price.of(usage.prompt_tokens, usage.completion_tokens) if usage and price else None,
    }
