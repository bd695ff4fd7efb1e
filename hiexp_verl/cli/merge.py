"""`hiexp merge`."""

import argparse
from pathlib import Path
from typing import Any

from hiexp_verl.cli.common import add_verb
from hiexp_verl.errors import HiExpError


def add_merge(verbs: Any) -> None:
    """Add the verb."""
    epilog = (
        "Entries that say the same are united and keep the sources of both; nothing is clustered anew. Where thresholds\n"
        "differ, the stricter is kept: the higher minimum score, the lower Ward height.\n\n"
        "example: hiexp merge hek_hotpot hek_wiki --out hek_both"
    )
    parser = add_verb(verbs, "merge", run_merge, "Make one HEK of two that have the same encoder.", epilog)
    parser.add_argument("a", type=Path, metavar="A")
    parser.add_argument("b", type=Path, metavar="B")
    parser.add_argument("--out", type=Path, required=True, metavar="C", help="directory; the merged HEK becomes its next version")
    parser.add_argument("--prefix", default="", help="put before ids of B's questions or trajectories where they mean others in A")
    parser.add_argument("--encoder", help="where the encoder of the HEKs lies, if it has moved")


def run_merge(arguments: argparse.Namespace) -> int:
    """Merge, save, and print what came of it."""
    from hiexp_verl.build.merge import merge_heks
    from hiexp_verl.hek.locate import find_encoder, open_encoder, remember_encoder
    from hiexp_verl.hek.store import HEK

    if arguments.out.exists() and not arguments.out.is_dir():
        raise HiExpError(f"--out {arguments.out} is a file; give a directory for the HEK")
    a, b = HEK.load(arguments.a), HEK.load(arguments.b)
    merged = merge_heks(a, b, open_encoder(a, arguments.a, arguments.encoder), arguments.prefix)
    version = merged.save(arguments.out)
    remember_encoder(arguments.out, find_encoder(a, arguments.a, arguments.encoder))
    print("\n".join(f"{count:6d} {what}" for what, count in merged.header.counts.items() if count))
    print(merged.header.reason)
    print(f"{', '.join(f'{count} {level.upper()}' for level, count in merged.levels.items())} in {version}")
    return 0
