"""`hiexp build`."""

import argparse
from pathlib import Path
from typing import Any

from hiexp_verl.cli.common import MAX_MODEL_LEN_HELP, add_verb


def add_build(verbs: Any) -> None:
    """Add the verb."""
    epilog = (
        "distillers:  rules             templates over the diagnosis, no model\n"
        "             vllm:DIR          a model directory, served by vLLM here (the policy itself, or a teacher)\n"
        "             openai:URL#MODEL  any OpenAI-compatible server\n"
        "             files:DIR         answers computed before\n\n"
        "example: hiexp build --trajectories outputs/rollouts/trajectories.jsonl --distiller rules --encoder DIR --out hek"
    )
    parser = add_verb(verbs, "build", run_build, "Distil trajectories into a three-level HEK.", epilog)
    parser.add_argument("--trajectories", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--distiller", default="rules", help="rules | vllm:DIR | openai:URL#MODEL | files:DIR (default rules)")
    parser.add_argument("--encoder", required=True, help="sentence-transformers directory or name; hash:256 for a dry run")
    parser.add_argument("--out", type=Path, required=True, metavar="HEK", help="directory; each build adds an immutable version")
    parser.add_argument("--resume", action="store_true", help="use the answers that an interrupted build left")
    parser.add_argument("--max-model-len", type=int, default=4096, help=MAX_MODEL_LEN_HELP)


def run_build(arguments: argparse.Namespace) -> int:
    """Build and print what was used and left out."""
    from hiexp_verl.build.command import build_command

    print(build_command(arguments))
    return 0
