"""`hiexp train`."""

import argparse
import os
import sys
from typing import Any

from hiexp_verl.cli.options import add_verb


def add(verbs: Any) -> None:
    """Add the verb."""
    epilog = (
        "Runs `python -m verl.trainer.main_ppo`: everything after the options is a hydra override.\n"
        "Without +hiexp=..., +hiexp=grpo is added.\n\n"
        "example: hiexp train --cpu +hiexp=gspo hiexp.hek=hek hiexp.search.corpus=corpus.jsonl \\\n"
        "             data.train_files=train.jsonl data.val_files=val.jsonl actor_rollout_ref.model.path=DIR"
    )
    parser = add_verb(verbs, "train", run_train, "Train with verl; on this machine's CPU with --cpu.", epilog)
    parser.add_argument("--cpu", action="store_true", help="platform cpu and rollout engine vllm_cpu")
    parser.usage = "hiexp train [--cpu] [hydra overrides and flags ...]"


def run_train(arguments: argparse.Namespace) -> int:
    """Become verl's trainer."""
    from hiexp_verl.plugin.launch import trainer_command

    command, environment = trainer_command(arguments.overrides, arguments.cpu)
    sys.stdout.flush()
    os.execvpe(command[0], command, environment)
