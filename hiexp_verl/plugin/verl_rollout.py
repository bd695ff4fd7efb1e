"""Rollouts by a verl validation run: verl's own agent loop and engine, no training."""

import json
import shutil
import subprocess
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hiexp_verl.domains import domain_named
from hiexp_verl.domains.domain import UNMARKED
from hiexp_verl.errors import HiExpError
from hiexp_verl.io.datasets import read_jsonl, read_questions, read_trajectories
from hiexp_verl.io.files import atomic_writer, only_one, write_jsonl
from hiexp_verl.io.manifest import Manifest, timed
from hiexp_verl.models.vllm_process import check_model_dir, is_cpu_build
from hiexp_verl.plugin.launch import trainer_command
from hiexp_verl.rollout.policy import find_policy
from hiexp_verl.rollout.rollout import SUMMARY, TRAJECTORIES, check_output, reading_of, summarise
from hiexp_verl.rollout.spec import RolloutSpec
from hiexp_verl.types import TRAJECTORY_KEY, Question

_WORK = ".verl-"  # in the output folder, while verl runs


def rollout_by_verl(spec: RolloutSpec) -> dict[str, Any]:
    """Validate the questions `k` times each with verl on this machine; write what `rollout` writes, return its summary.

    It runs on the CPU where the CPU build of vLLM is what is installed.

    Raises:
        HiExpError: verl failed (its log is kept), or left no trajectories; `resume` is asked for, which verl cannot.
    """
    check_output(spec.out, spec.resume)
    if spec.resume:
        raise HiExpError("--by verl plays all episodes in one validation run and cannot resume; leave --resume out")
    questions = read_questions(spec.questions)[: spec.limit]
    with only_one(spec.out):
        return _play(replace(spec, model=find_policy(spec.model, spec.out).spec), questions)


def _play(spec: RolloutSpec, questions: list[Question]) -> dict[str, Any]:
    if not Path(spec.model).is_dir():
        raise HiExpError(f"--by verl needs a model directory, found {spec.model!r}")
    check_model_dir(Path(spec.model))
    settings = {
        **asdict(spec.settings),
        **reading_of(spec.search),
        "corpus": spec.search.corpus or spec.search.url,
        "policy": spec.model,
        "by": "verl",
        **domain_named(spec.domain).mark,
    }
    settings |= {"hek": str(spec.hek), "arm": spec.arm, **spec.budgets.flat()} if spec.hek else {"hek": ""}
    manifest = Manifest(kind="rollout", spec=settings, results={"episodes": [TRAJECTORIES], "summary": [SUMMARY]})
    for unfinished in spec.out.glob(f"{_WORK}*"):  # of a killed run
        shutil.rmtree(unfinished)
    with timed(spec.out, manifest), tempfile.TemporaryDirectory(dir=spec.out, prefix=_WORK) as work:
        asked = Path(work) / "questions.jsonl"
        write_jsonl(asked, questions)
        command, environment = trainer_command(_overrides(spec, asked, Path(work) / "dump"), cpu=is_cpu_build())
        log = spec.out / "verl.log"
        with log.open("w", encoding="utf-8") as file:
            code = subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
        if code:
            raise HiExpError(_refusal(log) or f"verl ended with code {code}; see the end of {log}")
        dumps = sorted((Path(work) / "dump").glob("*.jsonl"))
        rows = [json.loads(row[TRAJECTORY_KEY]) for dump in dumps for _, row in read_jsonl(dump, "dump")]
    if not rows:
        raise HiExpError(f"verl left no trajectories; see the end of {log}")
    for row in rows:
        del row["extra"]["split"]  # "val" for verl alone: only the caller knows the role of the questions
    write_jsonl(spec.out / TRAJECTORIES, rows)
    summary = summarise(read_trajectories(spec.out / TRAJECTORIES))
    with atomic_writer(spec.out / SUMMARY) as file:
        json.dump(summary, file, indent=1)
    manifest.finish(spec.out)
    return summary


def _refusal(log: Path) -> str:
    """Return the error of our own check before the run, if that is what stopped it."""
    errors = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.startswith("hiexp: ")]
    return errors[-1].removeprefix("hiexp: ") if errors else ""


# Where the rollout runs on a GPU: one is enough for a policy that fits it.
_ONE_GPU = [
    "trainer.n_gpus_per_node=1",
    "actor_rollout_ref.rollout.name=vllm",
    "actor_rollout_ref.rollout.tensor_model_parallel_size=1",
]


def _overrides(spec: RolloutSpec, questions: Path, dump: Path) -> list[str]:
    settings, rollout = spec.settings, "actor_rollout_ref.rollout"
    hek = ["hiexp.enabled=false"]  # verl's own tool agent, which has no limit of a single turn
    if spec.hek:
        hek = [f"hiexp.hek={spec.hek}", f"hiexp.arm={spec.arm}", f"hiexp.max_tokens_per_turn={settings.max_tokens}"]
        hek += [f"hiexp.{name}={'null' if value is None else value}" for name, value in spec.budgets.flat().items()]
    return [
        "+hiexp=grpo",
        *hek,
        *([f"hiexp.domain={spec.domain}"] if spec.domain != UNMARKED else []),
        *(["hiexp.other_domain=true"] if spec.other_domain else []),
        *([f"hiexp.encoder={spec.encoder}"] if spec.encoder else []),
        *(f"hiexp.search.{name}={value}" for name in ("engine", "corpus", "url", "encoder") if (value := getattr(spec.search, name))),
        *(f"hiexp.search.{name}={value}" for name, value in reading_of(spec.search).items()),
        f"data.train_files={questions}",
        f"data.val_files={questions}",
        "data.train_batch_size=1",
        "data.max_prompt_length=1024",
        "data.max_response_length=2048",
        f"actor_rollout_ref.model.path={spec.model}",
        "actor_rollout_ref.actor.ppo_mini_batch_size=1",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1",
        "actor_rollout_ref.actor.use_kl_loss=false",
        f"{rollout}.log_prob_micro_batch_size_per_gpu=1",
        f"{rollout}.max_model_len=3072",
        f"{rollout}.multi_turn.format={settings.format}",
        f"{rollout}.multi_turn.max_assistant_turns={settings.max_searches + 1}",
        f"{rollout}.val_kwargs.n={spec.k}",
        f"{rollout}.val_kwargs.temperature={settings.temperature}",
        f"{rollout}.val_kwargs.top_p={settings.top_p}",
        f"{rollout}.val_kwargs.do_sample=true",
        f"{rollout}.seed={settings.seed}",
        *([] if is_cpu_build() else _ONE_GPU),
        "trainer.val_only=true",
        "trainer.val_before_train=true",
        "trainer.total_training_steps=1",
        "trainer.save_freq=-1",
        "trainer.logger=[console]",
        f"trainer.default_local_dir={dump.parent / 'checkpoints'}",
        f"trainer.validation_data_dir={dump}",
        f"hydra.run.dir={dump.parent / 'hydra'}",
    ]
