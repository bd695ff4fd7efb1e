"""verl's own engine in one process on a tiny random model: the look at a teacher, updates of a student, and the same KL by hand.

    python -m tests.support.distil_engine FOLDER

Prints {"by_hand": ..., "kl": [of each update], "ppo": the loss of a batch that is no round}. A process of its own: it holds a process
group.
"""

import json
import os
import socket
import sys
from functools import partial
from pathlib import Path

TOP_K, CLIP, UPDATES = 8, 10.0, 5
# Words of a prompt without and with a privilege, and of a response; whether the policy wrote them.
ROWS = (
    (
        "the answer is a country",
        "the answer is a country the capital of France",
        (("search France", 1), ("found Paris", 0), ("answer Paris", 1)),
    ),
    (
        "the capital",
        "the capital the highest point",
        (("search point", 1), ("found the mountain", 0), ("answer country of the mountain", 1)),
    ),
)


def main(folder: Path) -> None:
    """Look, learn, compare."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "VERL_PLATFORM": "cpu",
    }
    os.environ |= {"WG_BACKEND": "ray", "DIST_INIT_METHOD": f"tcp://127.0.0.1:{port}"}
    import torch
    from hydra import compose, initialize_config_module
    from tensordict import TensorDict
    from transformers import LlamaConfig, LlamaForCausalLM
    from verl.utils import tensordict_utils as tu
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.config import TrainingWorkerConfig
    from verl.workers.engine_workers import TrainingWorker

    import hiexp_verl.plugin.cpu.engine  # noqa: F401 (registers the engine for a CPU)
    from hiexp_verl.plugin.self_distil import MODE, loss
    from tests.support.verl_fixtures import tiny_tokenizer

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape, initializer_range=0.3)).eval()
    model.save_pretrained(folder)

    overrides = [
        f"actor_rollout_ref.model.path={folder}",
        "actor_rollout_ref.actor.strategy=fsdp2",
        "actor_rollout_ref.actor.optim.lr=1e-2",
    ]
    more = ["actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2", "actor_rollout_ref.actor.use_kl_loss=false"]
    exact = ["+actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=fp32", "actor_rollout_ref.model.use_remove_padding=false"]
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=["+hiexp=grpo", *overrides, *more, *exact])
    actor, of_model = (omega_conf_to_dataclass(part) for part in (config.actor_rollout_ref.actor, config.actor_rollout_ref.model))
    parts = {
        "model_config": of_model,
        "engine_config": actor.engine,
        "optimizer_config": actor.optim,
        "checkpoint_config": actor.checkpoint,
    }
    settings = TrainingWorkerConfig(model_type="language_model", **parts)
    settings.engine_config.use_dynamic_bsz = False
    settings.engine_config.micro_batch_size_per_gpu = settings.engine_config.infer_micro_batch_size_per_gpu = 2
    settings.engine_config.max_token_len_per_gpu = settings.engine_config.infer_max_token_len_per_gpu = 4096
    worker = TrainingWorker(settings)
    worker.reset()
    worker.set_loss_fn(partial(loss, actor, TOP_K, CLIP))

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    rows = []
    for student, teacher, parts_of in ROWS:
        response = [token for text, _ in parts_of for token in ids(text)]
        mask = [own for text, own in parts_of for _ in ids(text)]
        rows.append((ids(student), ids(teacher), response, mask))

    def nested(values: list, dtype: "torch.dtype" = torch.int64) -> "torch.Tensor":
        return torch.nested.as_nested_tensor([torch.as_tensor(each, dtype=dtype) for each in values], layout=torch.jagged)

    def batch(side: int, mode: str, **fields: "torch.Tensor") -> "TensorDict":
        sequences = [row[side] + row[2] for row in rows]
        both = {name: nested([row[3] for row in rows]) for name in ("response_mask", "loss_mask")}
        texts = {"prompts": nested([row[side] for row in rows]), "responses": nested([row[2] for row in rows])}
        places = {"input_ids": nested(sequences), "position_ids": nested([list(range(len(each))) for each in sequences])}
        data = TensorDict({**texts, **both, **places, **fields}, batch_size=[len(rows)])
        flags = {"temperature": 1.0, "calculate_entropy": False, "global_batch_size": len(rows), "mini_batch_size": len(rows), "epochs": 1}
        tu.assign_non_tensor(data, **flags, seed=0, dataloader_kwargs={"shuffle": False}, compute_loss=True)
        if mode:
            tu.assign_non_tensor(data, distillation_use_topk=True, distillation_only=True, **{MODE: mode})
        return data

    seen = worker.infer_batch(batch(1, "look"))
    log_p, top = [], []
    for number, (student, teacher, response, _) in enumerate(rows):
        values, tokens = (torch.stack([seen[f"hiexp_{what}{k}"].unbind()[number] for k in range(TOP_K)], -1) for what in ("p", "i"))
        first, length = len(teacher) - 1, len(response)
        p, i = torch.zeros(len(student) + length, TOP_K), torch.zeros(len(student) + length, TOP_K, dtype=torch.int64)
        p[len(student) - 1 : -1], i[len(student) - 1 : -1] = values[first : first + length].float(), tokens[first : first + length].long()
        log_p.append(p)
        top.append(i)
    kl = []
    for _ in range(UPDATES):
        learnt = worker.train_mini_batch(batch(0, "learn", hiexp_p=nested(log_p, torch.float32), hiexp_id=nested(top)))
        kl.append(_mean(tu.get(learnt, "metrics")["hiexp/distil/kl"]))
    ones = [[0.5] * len(row[2]) for row in rows]
    ppo = worker.train_mini_batch(batch(0, "", old_log_probs=nested(ones, torch.float32), advantages=nested(ones, torch.float32)))
    found = {"by_hand": by_hand(model, rows), "kl": kl, "ppo": _mean(tu.get(ppo, "metrics")["actor/pg_loss"])}
    sys.stdout.write(json.dumps(found) + "\n")


def by_hand(model: "object", rows: list) -> float:
    """Return the KL of the rows by transformers alone, the mean over the policy's own tokens."""
    import torch

    total, count = 0.0, 0
    for student, teacher, response, mask in rows:
        with torch.no_grad():
            q, p = (model(torch.tensor([each + response])).logits[0, len(each) - 1 : -1].softmax(-1) for each in (student, teacher))
        for q_V, p_V, own in zip(q.tolist(), p.tolist(), mask, strict=True):
            best = sorted(range(len(p_V)), key=lambda v, p_V=p_V: -p_V[v])[:TOP_K]
            rest = [1 - sum(each[v] for v in best) for each in (p_V, q_V)]
            pairs = [*((p_V[v], q_V[v]) for v in best), (rest[0], rest[1])]
            total += own * sum(a * (torch.tensor(a).log() - torch.tensor(b).log()).item() for a, b in pairs)
            count += own
    return total / count


def _mean(value: object) -> float:
    values = [_mean(each) for each in value] if isinstance(value, list | tuple) else [float(value)]
    return sum(values) / len(values)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
