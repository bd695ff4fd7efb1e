"""What `hiexp build` does with its arguments."""

import argparse
from itertools import chain

from hiexp_verl.build.distill import open_distiller
from hiexp_verl.build.pipeline import build
from hiexp_verl.encoder import load_encoder
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.locate import remember_encoder
from hiexp_verl.jsonl import read_trajectories


def build_command(arguments: argparse.Namespace) -> str:
    """Build a HEK from trajectory files, save it as a new version, return a summary.

    Raises:
        HiExpError: trajectories, encoder or distiller are not usable, or no experience came out.
    """
    if arguments.out.exists() and not arguments.out.is_dir():
        raise HiExpError(f"--out {arguments.out} is a file; give a directory for the HEK")
    trajectories = list(chain.from_iterable(read_trajectories(path) for path in arguments.trajectories))
    encoder = load_encoder(arguments.encoder)
    with open_distiller(arguments.distiller, arguments.out / "answers.jsonl", arguments.resume, arguments.max_model_len) as distiller:
        report = build(trajectories, distiller, encoder)
    version = report.hek.save(arguments.out)
    remember_encoder(arguments.out, arguments.encoder)
    levels = ", ".join(f"{count} {level.upper()}" for level, count in report.hek.levels.items())
    return f"{report.summary()}\n{levels} in {version}"
