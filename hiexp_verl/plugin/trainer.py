"""verl's synchronous trainer with HiExp's metrics and a dump of trajectories: `trainer.v1.trainer_mode=hiexp_sync`."""

import json
from pathlib import Path
from typing import Any

import transfer_queue as tq
from omegaconf import DictConfig, open_dict
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from hiexp_verl.jsonl import write_jsonl
from hiexp_verl.plugin.agent_loop import settings_of
from hiexp_verl.plugin.expect import Expectation
from hiexp_verl.plugin.metrics import episode_metrics
from hiexp_verl.plugin.retrieval import retrieval_for
from hiexp_verl.run.encoders import pinned
from hiexp_verl.types import TRAJECTORY_KEY


@register_trainer("hiexp_sync")
class HiExpTrainer(PPOTrainerSync):
    """`PPOTrainerSync` that logs `hiexp/*` each step."""

    def __init__(self, config: DictConfig) -> None:
        # verl compares the mode with "sync" in a dozen places; ours differs only in what it logs.
        settings = pinned(settings_of(config))
        with open_dict(config):
            config.trainer.v1.trainer_mode = "sync"
            if settings.hek_hash:  # the agent loops of all nodes get this config: one HEK, whatever happens to CURRENT
                config.hiexp.hek, config.hiexp.hek_hash = settings.hek, settings.hek_hash
        super().__init__(config)
        # Starts loading encoder, HEK and corpus while the models are initialised; agent loops of this node find it.
        self.retrieval = retrieval_for(settings)
        self.expectation = Expectation(settings)

    def _compute_metrics(self, batch: Any, metrics: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        result = super()._compute_metrics(batch, metrics, *args, **kwargs)
        # Padding rows repeat row 0 and must not be counted.
        keys = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding")]
        data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=["extra_fields"])
        rewards = [dict(fields.get("reward_extra_info") or {}) for fields in data.pop("extra_fields").tolist()]
        groups = [key.rsplit("_", 2)[0] for key in keys]
        metrics.update(episode_metrics(rewards, groups))
        self.expectation.check(metrics)
        dump_dir = self.config.get("hiexp", {}).get("dump_dir")
        if dump_dir:
            rows = [json.loads(r[TRAJECTORY_KEY]) for r in rewards if TRAJECTORY_KEY in r]
            for row in rows:
                row["id"] += f"@{self.global_steps}"  # a question comes back in later steps
            write_jsonl(Path(dump_dir) / f"{self.global_steps:06d}.jsonl", rows)
        return result
