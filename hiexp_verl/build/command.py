"""What `hiexp build` does with its arguments."""

import argparse
import json
from dataclasses import asdict
from itertools import chain
from pathlib import Path

from hiexp_verl.build.distill import PromptedDistiller, open_distiller
from hiexp_verl.build.dry_run import dry_run
from hiexp_verl.build.pipeline import BuildReport, build
from hiexp_verl.build.usage import Price, Usage
from hiexp_verl.encoder import load_encoder
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.locate import remember_encoder
from hiexp_verl.hek.lock import locked
from hiexp_verl.jsonl import atomic_writer, read_trajectories


def build_command(arguments: argparse.Namespace) -> str:
    """Build a HEK from trajectory files, save it as a new version, return a summary.

    Raises:
        HiExpError: trajectories, encoder or distiller are not usable, or no experience came out.
    """
    out: Path = arguments.out
    if out.exists() and not out.is_dir():
        raise HiExpError(f"--out {out} is a file; give a directory for the HEK")
    if arguments.concurrency is not None and arguments.concurrency < 1:
        raise HiExpError(f"--concurrency must be at least 1, found {arguments.concurrency}")
    price = Price(*arguments.price) if arguments.price else None
    trajectories = list(chain.from_iterable(read_trajectories(path) for path in arguments.trajectories))
    encoder = load_encoder(arguments.encoder)
    if arguments.dry_run:
        return dry_run(trajectories, arguments.distiller, encoder, arguments.show, price)
    cache = out / "answers.jsonl"
    with open_distiller(arguments.distiller, cache, arguments.resume, arguments.max_model_len, arguments.concurrency) as distiller:
        report = build(trajectories, distiller, encoder)
    usage = distiller.usage if isinstance(distiller, PromptedDistiller) else None
    version = report.hek.save(out)
    remember_encoder(out, arguments.encoder)
    _write_report(out, version, report, usage, price)
    levels = ", ".join(f"{count} {level.upper()}" for level, count in report.hek.levels.items())
    asked = f"\ndistiller: {usage.summary(price)}" if usage else ""
    return f"{report.summary()}{asked}\n{levels} in {version}"


def _write_report(out: Path, version: Path, report: BuildReport, usage: Usage | None, price: Price | None) -> None:
    """Write OUT/build.json. It tells of this run, not of the HEK: a build that was resumed took less than one that was not."""
    row = {
        "version": version.name,
        "levels": report.hek.levels,
        "counts": report.counts,
        "step_fire_rate": report.step_fire_rate,
        "usage": asdict(usage) if usage else None,
        "cost": price.of(usage.prompt_tokens, usage.completion_tokens) if usage and price else None,
    }
    with locked(out), atomic_writer(out / "build.json") as file:
        file.write(json.dumps(row, ensure_ascii=False, indent=1) + "\n")
