"""verl's trainers with HiExp's metrics, dump and checkpoints: `trainer.v1.trainer_mode=hiexp_sync`, `hiexp_colocate_async`, ..."""

import json
import logging
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import transfer_queue as tq
from omegaconf import DictConfig, open_dict
from verl.trainer.ppo.v1.trainer_base import PPOTrainer, register_trainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu

from hiexp_verl.config import Budgets, HiExpConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.arms import arm_of
from hiexp_verl.guide.record import EpisodeRecord
from hiexp_verl.guide.select import selects, values_path
from hiexp_verl.hek.opening import open_hek, pinned
from hiexp_verl.hek.store import HEK, root_of
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.ledger.rows import LedgerRow, append_rows, forget_after, read_ledger, rows_of_step
from hiexp_verl.ledger.values import fit
from hiexp_verl.plugin.advantage import Arms, Terms, baseline_within, with_terms
from hiexp_verl.plugin.agent_loop import settings_of
from hiexp_verl.plugin.bonus import bonuses
from hiexp_verl.plugin.checkpoint import folder_to_resume, identity_of, ledger_of, load_loop, load_state, played_of, save_state
from hiexp_verl.plugin.dataset import paths_of
from hiexp_verl.plugin.loop import STAMP, Loop, opened
from hiexp_verl.plugin.metrics import EpisodeOutcome, novelties_of
from hiexp_verl.plugin.monitor import ALARMS, Watch
from hiexp_verl.plugin.policy_gate import Gatekeeper, PolicyModel
from hiexp_verl.plugin.preflight_data import questions_in
from hiexp_verl.plugin.retrieval import check_nodes, retrieval_for
from hiexp_verl.plugin.self_distil import SelfDistil
from hiexp_verl.plugin.turns import Turns
from hiexp_verl.types import TRAJECTORY_KEY

logger = logging.getLogger(__name__)


class HiExpTrainer(PPOTrainer):
    """A verl trainer with `hiexp/*` metrics each step, baselines per arm, a dump of episodes and our state in checkpoints."""

    mode: str  # verl's name of the trainer that it extends

    def __init__(self, config: DictConfig) -> None:
        self.settings = settings = pinned(settings_of(config))
        with open_dict(config):
            # verl compares the mode with its own names in a dozen places, and ours behave like those.
            config.trainer.v1.trainer_mode = self.mode
            if settings.hek_hash:  # the agent loops of all nodes get this config: one HEK, whatever happens to CURRENT
                config.hiexp.hek, config.hiexp.hek_hash = settings.hek, settings.hek_hash
            if settings.group.strip:
                # Sampled with experience, trained without: verl's rollout correction, clipped at its threshold, corrects for it.
                correction = config.algorithm.rollout_correction
                correction.rollout_is = correction.rollout_is or "token"
        check_nodes(settings)
        super().__init__(config)
        _fit_values(settings, resumed=folder_to_resume(config) is not None)
        # Loads encoder, HEK and corpus while the models are initialised; agent loops of this node use the same.
        self.retrieval = retrieval_for(settings)
        hek, rollout = open_hek(settings), config.actor_rollout_ref.rollout
        self.identity = identity_of(settings, hek, config)
        self.ledger = ledger_of(settings, config)
        self.distil: SelfDistil | None = None
        self.loop: Loop | None = None
        if self.ledger is not None and settings.loop.enabled:
            validation = [text for file in paths_of(config.data.val_files) for text in questions_in(config, file)]
            self.loop = Loop(settings, Path(config.trainer.default_local_dir), self.ledger, validation)
        self.gatekeeper: Gatekeeper | None = None
        self.stop: HiExpError | None = None  # why the run ends after this step
        self.watch = Watch(settings, hek, n=rollout.n, max_searches=max(0, (rollout.multi_turn.max_assistant_turns or 1) - 1))

    def fit(self, agent_loop_manager: Any) -> None:
        """Train; with the loop, every batch that is played carries the versions of the HEK."""
        manager: Any = _Stamped(agent_loop_manager, self.loop) if self.loop is not None else agent_loop_manager
        super().fit(manager)

    def on_init_end(self) -> None:
        """Give the workers a loss that knows rounds of self-distillation, and the loop its distiller, where there are some."""
        super().on_init_end()
        if self.settings.distil.every:
            self.distil = SelfDistil(self.settings, self.config, self.tokenizer, self.actor_rollout_wg, self.retrieval)
        if self.loop is not None and self.settings.loop.distiller == "policy":
            self.gatekeeper = Gatekeeper(self.llm_server_manager.get_client())
            template, limit = self.config.data.get("apply_chat_template_kwargs") or {}, self.config.actor_rollout_ref.rollout.max_model_len
            self.loop.policy = PolicyModel(self.gatekeeper.gate, self.tokenizer, template, limit)
            self.gatekeeper.open()

    def on_sample_end(self) -> None:
        """Close the gate of the distiller before the servers sleep."""
        if self.gatekeeper is not None:
            self.gatekeeper.close()
        super().on_sample_end()

    def on_step_end(self) -> None:
        """Open the gate of the distiller when the servers have the weights of the step."""
        super().on_step_end()
        if self.gatekeeper is not None:
            self.gatekeeper.open()

    def on_step_begin(self) -> None:
        """Take the candidate of the builder, before a prompt of this step is played."""
        super().on_step_begin()
        if self.loop is not None:
            self.loop.begin(self.global_steps)

    def _load_checkpoint(self) -> None:
        folder = folder_to_resume(self.config)
        state = load_state(folder, self.identity, self.settings.allow_mismatch) if folder is not None else None
        super()._load_checkpoint()
        if state is not None:
            self.watch.load(state)
        if self.ledger is not None:
            forget_after(self.ledger, self.global_steps)
        if self.loop is not None:
            self.loop.load(load_loop(folder) if state is not None and folder is not None else None, self.global_steps)

    def _save_checkpoint(self) -> None:
        # Before verl's files, of which the marker is last: a checkpoint that it names is complete.
        folder = Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"
        loop = self.loop.state.to_json() if self.loop is not None else None
        save_state(folder, self.identity, played_of(self.settings, self.config), self.settings.hek, self.watch.state(), loop)
        super()._save_checkpoint()

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        group = self.settings.group
        arms = None
        if group.baseline == "within-arm":
            sessions = [int(key.rsplit("_", 2)[1]) for key in batch.keys]  # verl's keys are {uid}_{session}_{output}
            arms = Arms([arm_of(session, self.settings) for session in sessions], group.shrinkage)
        with baseline_within(arms), with_terms(self._terms(batch)):
            return super()._compute_advantage(batch, metrics)

    def _terms(self, batch: Any) -> Terms | None:
        """Return what `hiexp.credit` adds to the advantages of a batch, None where it adds nothing; padding rows have no loss."""
        credit = self.settings.credit
        if not (credit.plan or credit.novelty or credit.turns):
            return None
        episodes = self._episodes(batch, with_advantages=False)
        bonus_E = bonuses(credit, [e.right for e in episodes], [e.record.followed for e in episodes], novelties_of(episodes))
        paid = {e.key: bonus for e, bonus in zip(episodes, bonus_E, strict=True)}
        states = {e.key: e.record.states or () for e in episodes}
        turns = Turns([states.get(key, ()) for key in batch.keys], credit.turns) if credit.turns else None
        return Terms(np.array([paid.get(key, 0.0) for key in batch.keys]), turns)

    def step(self, metrics: dict[str, Any], timing_raw: dict[str, Any]) -> Any:
        """Train one step and count its episodes, before verl saves the checkpoint."""
        batch = super().step(metrics, timing_raw)
        episodes = self._episodes(batch)
        if self.settings.dump_dir:
            rows = [json.loads(e.scores[TRAJECTORY_KEY]) for e in episodes if TRAJECTORY_KEY in e.scores]
            for row in rows:
                row["id"] += f"@{self.global_steps}"  # a question comes back in later steps
            write_jsonl(Path(self.settings.dump_dir) / f"{self.global_steps:06d}.jsonl", rows)
        counted: list[LedgerRow] = []
        if self.ledger is not None:
            seen = ((e.group, e.record, e.reward) for e in episodes)
            counted = rows_of_step(seen, self.global_steps, self.settings.ledger.mask)
            try:
                append_rows(self.ledger, counted)
            except HiExpError as error:  # evidence is lost, not the training; a resumed run would not have it either
                counted = []
                logger.warning("the rollouts of step %d are not in the ledger: %s", self.global_steps, error)
        last = self.global_steps >= self.total_training_steps
        try:
            self.watch.step(episodes, metrics, last)
        except HiExpError as error:
            self.stop = error
        if self.distil is not None and self.distil.is_due(self.global_steps):
            version = self.loop.versions.incumbent if self.loop is not None else None
            metrics.update(self.distil.round(batch, episodes, version))
        if self.loop is not None:
            before = self.loop.versions.incumbent
            alarmed = any(metrics.get(f"hiexp/alarm/{name}") for name in ALARMS)
            metrics.update(self.loop.step(self.global_steps, counted, alarmed, last, metrics))
            if self.loop.versions.incumbent != before:
                self.watch.rearm(opened(self.loop.versions.incumbent))
        return batch

    def _compute_metrics(self, batch: Any, metrics: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        result = super()._compute_metrics(batch, metrics, *args, **kwargs)
        scores = [float(value) for name, value in metrics.items() if name.startswith("val-core/") and "/mean@" in name]
        if self.loop is not None and scores:
            self.loop.validated(self.global_steps, fmean(scores))
        if self.stop is not None:
            self.logger.log(data=metrics, step=self.global_steps)  # otherwise verl would not log the step that ends the run
            raise self.stop
        return result

    def _episodes(self, batch: Any, with_advantages: bool = True) -> list[EpisodeOutcome]:
        """Return the batch's rollouts of our agent loop; padding rows repeat row 0 and are left out."""
        keys = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding")]
        fields = ["extra_fields", "rm_scores", "response_mask", *(["advantages"] if with_advantages else [])]
        data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=fields)
        extras = data.pop("extra_fields").tolist()
        scores, masks = data["rm_scores"].unbind(), data["response_mask"].unbind()
        advantages = data["advantages"].unbind() if with_advantages else [mask * 0.0 for mask in masks]
        rows = zip(keys, extras, scores, advantages, masks, strict=True)
        return [
            EpisodeOutcome(
                group=key.rsplit("_", 2)[0],
                reward=float(score.sum()),
                record=EpisodeRecord.from_json(extra["hiexp"]),
                advantage=float((advantage * mask).sum() / mask.sum().clamp(min=1)),
                tokens=int(mask.sum()),
                scores=dict(extra.get("reward_extra_info") or {}),
                key=key,
            )
            for key, extra, score, advantage, mask in rows
            if "hiexp" in extra
        ]


def _fit_values(settings: HiExpConfig, resumed: bool) -> None:
    """Fit what selection by value knows to the ledger so far, before anything is looked up; a resumed run goes on with what it had."""
    budgets = Budgets(settings.prompt, settings.tool)
    if not (settings.enabled and settings.hek and selects(budgets)):
        return
    hek, version = HEK.load(Path(settings.hek)), Path(settings.hek)
    if not resumed or not values_path(version, hek.header.content_hash).is_file():
        values = fit(read_ledger(root_of(version)), hek, budgets)
        values.save(version, hek.header.content_hash)
        logger.info("entries are selected by value at: %s", ", ".join(values.places) or "no place, the ledger knows too little")


class _Stamped:
    """verl's manager of agent loops; every batch, of training, validation, refill and re-issue, passes this one call."""

    def __init__(self, manager: Any, loop: Loop) -> None:
        self._manager, self._loop = manager, loop

    def generate_sequences(self, batch: Any) -> Any:
        tu.assign_non_tensor_data(batch, STAMP, self._loop.versions.stamp())
        return self._manager.generate_sequences(batch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)


@register_trainer("hiexp_sync")
class HiExpTrainerSync(HiExpTrainer, PPOTrainerSync):
    """`PPOTrainerSync` with HiExp."""

    mode = "sync"


@register_trainer("hiexp_colocate_async")
class HiExpTrainerColocateAsync(HiExpTrainer, PPOTrainerColocateAsync):
    """`PPOTrainerColocateAsync` with HiExp."""

    mode = "colocate_async"


@register_trainer("hiexp_separate_async")
class HiExpTrainerSeparateAsync(HiExpTrainer, PPOTrainerSeparateAsync):
    """`PPOTrainerSeparateAsync` with HiExp: rollouts have GPUs of their own. Constructed in tests, never run: it needs several GPUs."""

    mode = "separate_async"
