"""`hiexp train`."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from hiexp_verl.cli.options import add_verb, say
from hiexp_verl.errors import HiExpError


def add(verbs: Any) -> None:
    """Add the verb."""
    epilog = (
        "Runs `python -m verl.trainer.main_ppo`: everything after the options is a hydra override.\n"
        "Without +hiexp=..., +hiexp=grpo is added.\n\n"
        "example: hiexp train --cpu +hiexp=gspo hiexp.hek=hek hiexp.search.corpus=corpus.jsonl \\\n"
        "             data.train_files=train.jsonl data.val_files=val.jsonl actor_rollout_ref.model.path=DIR\n\n"
        "--distil does one round of self-distillation with the pairs of `hiexp distil-pairs`, without rollouts, in one process on one\n"
        "device; hiexp.distil.* and actor_rollout_ref.actor.* as in training. It learns from the text of the pairs as `hiexp rollout`\n"
        "writes it. The policy, metrics.jsonl and run.json lie in trainer.default_local_dir.\n\n"
        "example: hiexp train --cpu --distil pairs.jsonl actor_rollout_ref.model.path=DIR trainer.default_local_dir=outputs/distilled \\\n"
        "             actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2 actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=2"
    )
    parser = add_verb(verbs, "train", run_train, "Train with verl; on this machine's CPU with --cpu.", epilog)
    parser.add_argument("--cpu", action="store_true", help="platform cpu and rollout engine vllm_cpu")
    parser.add_argument("--distil", type=Path, metavar="FILE", help="a round of self-distillation alone, with these pairs")
    parser.add_argument(
        "--same-model", action="store_true", help="with --distil: pairs of a policy under another name; you know that it is the same"
    )
    parser.usage = "hiexp train [--cpu] [--distil FILE [--same-model]] [hydra overrides and flags ...]"


def run_train(arguments: argparse.Namespace) -> int:
    """Become verl's trainer, or a round of self-distillation alone."""
    from hiexp_verl.plugin.launch import environment_of, trainer_command

    if arguments.same_model and arguments.distil is None:
        raise HiExpError("--same-model is of --distil FILE; give the file of pairs, or leave it out")
    if arguments.distil is not None:
        os.environ |= environment_of(arguments.cpu)  # before torch and verl read it
        return _round(arguments)
    command, environment = trainer_command(arguments.overrides, arguments.cpu)
    sys.stdout.flush()
    os.execvpe(command[0], command, environment)


def _round(arguments: argparse.Namespace) -> int:
    """Do a round of self-distillation alone and print what it did."""
    from hiexp_verl.plugin.distil_alone import composed, run, summary

    config = composed([each for each in arguments.overrides if each != "--"])
    say(summary(run(arguments.distil, config, arguments.same_model), config))
    return 0
