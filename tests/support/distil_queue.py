"""Rows of a round through verl's queue, twice with the same keys; a worker that reads them as verl's do.

    python -m tests.support.distil_queue

Prints one line of JSON. A process of its own: it holds a Ray cluster.
"""

import json
import sys
from typing import Any


def main() -> None:
    """Look, learn, check, look again."""
    import ray
    import torch
    import transfer_queue as tq
    from tensordict import TensorDict

    from hiexp_verl.plugin.self_distil import Workers
    from tests.support.verl_fixtures import compose

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False)
    config = compose("+hiexp=grpo", "actor_rollout_ref.rollout.name=vllm").transfer_queue
    config.backend.SimpleStorage.num_data_storage_units = 1
    tq.init(config)
    seen: list[Any] = []

    class Doubling:
        """Returns twice the ids of the rows as the field "hiexp_kl"."""

        def compute_log_prob(self, meta: Any) -> None:
            got = tq.kv_batch_get(keys=meta.keys, partition_id=meta.partition_id)
            seen.append([meta.extra_info["mode"], sorted(got.keys())])
            doubled = torch.nested.as_nested_tensor([row.float() * 2 for row in got["input_ids"].unbind()], layout=torch.jagged)
            fields = TensorDict({"hiexp_kl": doubled}, batch_size=[len(meta.keys)])
            tq.kv_batch_put(keys=meta.keys, partition_id=meta.partition_id, fields=fields)

        def update_actor(self, meta: Any) -> dict[str, Any]:
            got = tq.kv_batch_get(keys=meta.keys, partition_id=meta.partition_id)
            seen.append([meta.extra_info["mode"], sorted(got.keys())])
            return {"metrics": {"rows": len(meta.keys)}}

    def row(length: int, **more: Any) -> dict[str, Any]:
        return {"input_ids": torch.arange(length), "prompts": torch.arange(2), "responses": torch.arange(length - 2), **more}

    workers, keys, found = Workers(Doubling(), 1, None), ["u_1_0_0", "u_1_1_0"], []  # type: ignore[arg-type]
    for _ in range(2):
        found.append([one["hiexp_kl"].tolist() for one in workers.forward(keys, [row(3), row(5)], ["hiexp_kl"], mode="look")])
        found.append(dict(workers.update(keys, [row(4, hiexp_p=torch.zeros(4, 3)), row(6, hiexp_p=torch.zeros(6, 3))], mode="learn")))
        checked = workers.forward(keys[:1], [row(3, hiexp_p=torch.zeros(3, 3))], ["hiexp_kl"], mode="check")
        found.append([one["hiexp_kl"].tolist() for one in checked])
    sys.stdout.write(json.dumps({"found": found, "seen": seen}) + "\n")
    ray.shutdown()


if __name__ == "__main__":
    main()
