"""Rollouts by a verl validation run: verl's own agent loop and engine, no training."""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hiexp_verl.config import HiExpConfig, block_of
from hiexp_verl.errors import HiExpError
from hiexp_verl.io.datasets import read_jsonl, read_trajectories
from hiexp_verl.io.files import atomic_writer, make_folder, write_jsonl
from hiexp_verl.io.manifest import Manifest, timed
from hiexp_verl.models.vllm_process import check_model_dir, is_cpu_build
from hiexp_verl.rollout.rollout import SUMMARY, TRAJECTORIES, summarise
from hiexp_verl.types import TRAJECTORY_KEY, Question


def rollout_by_verl(questions: Sequence[Question], arguments: argparse.Namespace, run: HiExpConfig) -> dict[str, Any]:
    """Validate the questions `k` times each with verl on this machine; write what `rollout` writes, return its summary.

    It runs on the CPU where the CPU build of vLLM is what is installed.

    Raises:
        HiExpError: verl failed (its log is kept), or left no trajectories; `resume` is asked for, which verl cannot.
    """
    from hiexp_verl.plugin.launch import trainer_command

    if arguments.resume:
        raise HiExpError("--by verl plays all episodes in one validation run and cannot resume; leave --resume out")

    if not Path(arguments.model).is_dir():
        raise HiExpError(f"--by verl needs a model directory, found {arguments.model!r}")
    check_model_dir(Path(arguments.model))
    make_folder(arguments.out)
    spec = {name: value for name, value in vars(arguments).items() if name not in ("verb", "overrides")}
    manifest = Manifest(kind="rollout", spec=spec, results={"episodes": [TRAJECTORIES], "summary": [SUMMARY]})
    with timed(arguments.out, manifest), tempfile.TemporaryDirectory(dir=arguments.out, prefix=".verl-") as work:
        asked = Path(work) / "questions.jsonl"
        write_jsonl(asked, questions)
        command, environment = trainer_command(_overrides(arguments, run, asked, Path(work) / "dump"), cpu=is_cpu_build())
        log = arguments.out / "verl.log"
        with log.open("w", encoding="utf-8") as file:
            code = subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
        if code:
            raise HiExpError(_refusal(log) or f"verl ended with code {code}; the end of {log} says why")
        dumps = sorted((Path(work) / "dump").glob("*.jsonl"))
        rows = [json.loads(row[TRAJECTORY_KEY]) for dump in dumps for _, row in read_jsonl(dump, "dump")]
    for row in rows:
        del row["extra"]["split"]  # "val" for verl alone: it is the caller who knows what the questions are for
    if not rows:
        raise HiExpError(f"verl left no trajectories; the end of {log} says why")
    path = arguments.out / TRAJECTORIES
    write_jsonl(path, rows)
    summary = summarise(read_trajectories(path))
    with atomic_writer(arguments.out / SUMMARY) as file:
        json.dump(summary, file, indent=1)
    manifest.finish(arguments.out)
    return summary


def _refusal(log: Path) -> str:
    """Return what our own check before the run said, if that is what stopped it."""
    said = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.startswith("hiexp: ")]
    return said[-1].removeprefix("hiexp: ") if said else ""


def _overrides(arguments: argparse.Namespace, run: HiExpConfig, questions: Path, dump: Path) -> list[str]:
    search = run.search
    where = {"engine": search.engine, "corpus": search.corpus, "url": search.url, "encoder": search.encoder}
    # Without a HEK it is verl's own tool agent, which knows no limit of a single turn.
    shown = [f"hiexp.hek={arguments.hek}", f"hiexp.arm={run.arm}"]
    for place, block in (("prompt", run.prompt), ("tool", run.tool)):
        shown += [f"hiexp.{place}.{name}={'null' if value is None else value}" for name, value in block_of(block).items()]
    hek = [*shown, f"hiexp.max_tokens_per_turn={arguments.max_tokens}"] if arguments.hek else ["hiexp.enabled=false"]
    rollout = "actor_rollout_ref.rollout"
    return [
        "+hiexp=grpo",
        *hek,
        *([f"hiexp.encoder={arguments.encoder}"] if arguments.encoder else []),
        *(f"hiexp.search.{name}={value}" for name, value in where.items() if value),
        f"hiexp.search.top_k={arguments.top_k}",
        f"hiexp.search.max_words_per_passage={arguments.max_words}",
        f"hiexp.search.max_chars={arguments.max_chars}",
        f"data.train_files={questions}",
        f"data.val_files={questions}",
        "data.train_batch_size=1",
        "data.max_prompt_length=1024",
        "data.max_response_length=2048",
        f"actor_rollout_ref.model.path={arguments.model}",
        "actor_rollout_ref.actor.ppo_mini_batch_size=1",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1",
        "actor_rollout_ref.actor.use_kl_loss=false",
        f"{rollout}.log_prob_micro_batch_size_per_gpu=1",
        f"{rollout}.max_model_len=3072",
        f"{rollout}.multi_turn.format={arguments.format}",
        f"{rollout}.multi_turn.max_assistant_turns={arguments.max_searches + 1}",
        f"{rollout}.val_kwargs.n={arguments.k}",
        f"{rollout}.val_kwargs.temperature={arguments.temperature}",
        f"{rollout}.val_kwargs.top_p={arguments.top_p}",
        f"{rollout}.val_kwargs.do_sample=true",
        f"{rollout}.seed={arguments.seed}",
        "trainer.val_only=true",
        "trainer.val_before_train=true",
        "trainer.total_training_steps=1",
        "trainer.save_freq=-1",
        "trainer.logger=[console]",
        f"trainer.default_local_dir={dump.parent / 'checkpoints'}",
        f"trainer.validation_data_dir={dump}",
        f"hydra.run.dir={dump.parent / 'hydra'}",
    ]
