"""verl's own engine in one process on a tiny random model: rounds of self-distillation, and the same KL by hand.

    python -m tests.support.distil_engine FOLDER [lora]

Prints one line of JSON. A process of its own: it holds a process group.
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

TOP_K, CLIP, UPDATES = 8, 10.0, 5
# Words of a prompt without and with a privilege, and of a response; whether the policy wrote them.
ROWS = (
    (
        "the answer is a country",
        "the answer is a country the capital of France",
        (("<search> France </search>", 1), ("found Paris", 0), ("answer <answer> Paris </answer>", 1)),
    ),
    (
        "the capital",
        "the capital the highest point",
        (("<search> point </search>", 1), ("found the mountain", 0), ("so <answer> country of the mountain </answer>", 1)),
    ),
)


def main(folder: Path, lora: bool) -> None:
    """Look, learn, compare."""
    os.environ |= {"VERL_PLATFORM": "cpu"}
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from verl.utils import tensordict_utils as tu

    from hiexp_verl.config import HiExpConfig, SelfDistilConfig
    from hiexp_verl.plugin.distil_alone import Direct, _batch, composed
    from hiexp_verl.plugin.distil_loss import MODE
    from hiexp_verl.plugin.distil_round import FLAGS, Round
    from hiexp_verl.plugin.self_distil import Workers
    from tests.support.verl_fixtures import tiny_tokenizer

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape, initializer_range=0.3)).eval()
    model.save_pretrained(folder)
    config = composed(
        [
            f"actor_rollout_ref.model.path={folder}",
            "actor_rollout_ref.actor.optim.lr=1e-2",
            "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2",
            "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=2",
            "actor_rollout_ref.actor.use_kl_loss=false",
            "+actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=fp32",
            *(["actor_rollout_ref.model.lora_rank=4", "actor_rollout_ref.model.lora_alpha=8"] if lora else []),
        ]
    )
    config.actor_rollout_ref.actor.checkpoint.save_contents = ["model", "optimizer", "extra"]
    config.actor_rollout_ref.actor.checkpoint.load_contents = ["model", "optimizer", "extra"]
    distil = SelfDistilConfig(top_k=TOP_K, clip=CLIP, mini_batch=2, check_every=1, epochs=UPDATES, held_out=0)
    engine = Direct(config, HiExpConfig(distil=distil))
    students = [student(number, row, tokenizer) for number, row in enumerate(ROWS)]
    alike = [replace(each, teacher=each.prompt) for each in students]
    round_ = Round(distil, engine)
    found: dict[str, object] = {"by_hand": by_hand(model, students)}

    seen = round_.look(alike, [each.teacher for each in alike])
    rows = [each.fields(each.prompt) | each.aligned(own) | each.aligned(own, "hiexp_start_") for each, own in zip(alike, seen, strict=True)]
    of_tokens = engine.forward([each.key for each in alike], rows, ["hiexp_kl", "hiexp_drift", "hiexp_overlap"], **FLAGS, **{MODE: "check"})
    own = [slice(len(each.prompt) - 1, len(each.prompt) - 1 + len(each.response)) for each in alike]
    found["equal"] = {
        "argmax": agreement(model, alike, seen),
        "kl": max(float(fields["hiexp_kl"][at].abs().max()) for fields, at in zip(of_tokens, own, strict=True)),
        "overlap": min(float(fields["hiexp_overlap"][at].min()) for fields, at in zip(of_tokens, own, strict=True)),
    }

    kept = Workers(engine.worker, 2, folder / "kept")
    kept.keep()
    before, kl = weights(engine), []
    found["metrics"] = round_.run(students, lambda _, figures: kl.append(figures.get("hiexp/distil/kl")))
    found["kl"] = kl[1:]
    if lora:
        without = round_.look(alike, [each.prompt for each in alike], no_lora_adapter=True)
        with_it = round_.look(alike, [each.prompt for each in alike])
        found["base"] = max(float((one.log_p_R_K - other.log_p_R_K).abs().max()) for one, other in zip(without, seen, strict=True))
        found["adapted"] = max(float((one.log_p_R_K - other.log_p_R_K).abs().max()) for one, other in zip(with_it, seen, strict=True))
        base = Round(replace(distil, teacher="base", epochs=1), engine).run([replace(each, teacher=each.prompt) for each in students])
        found["base_kl"] = base["hiexp/distil/kl"]
    moved = distance(before, weights(engine))
    kept.restore()
    found["moved"], found["back"] = moved, distance(before, weights(engine))

    # Six learn, two are watched; a learning rate at which they lose what they had.
    many = [replace(students[number % 2], key=f"many_{number}") for number in range(8)]
    for group in engine.worker.engine.optimizer.param_groups:
        group["lr"] = 10.0
    start = weights(engine)
    found["guarded"] = Round(replace(distil, held_out=2, epochs=1), engine).run(many)
    found["after_guard"] = distance(start, weights(engine))

    ones = [torch.full((len(each.response),), 0.5) for each in students]
    fields = [each.fields(each.prompt) | {"old_log_probs": half, "advantages": half} for each, half in zip(students, ones, strict=True)]
    flags = {"temperature": 1.0, "calculate_entropy": False, "global_batch_size": 2, "mini_batch_size": 2, "epochs": 1, "seed": 0}
    ppo = engine.worker.train_mini_batch(_batch(fields, flags | {"dataloader_kwargs": {"shuffle": False}}))
    found["ppo"] = float(tu.get(ppo, "metrics")["actor/pg_loss"][0])
    sys.stdout.write(json.dumps(found) + "\n")


def student(number: int, row: tuple, tokenizer: "object"):
    """Return a row as a student."""
    import torch

    from hiexp_verl.config import HiExpConfig
    from hiexp_verl.plugin.distil_round import Student
    from hiexp_verl.plugin.teacher import Teacher

    teacher = Teacher(HiExpConfig(), tokenizer, None, {})
    prompt, privileged, parts = row
    response = [token for text, _ in parts for token in teacher.encode(text)]
    mask = [own for text, own in parts for _ in teacher.encode(text)]
    tensors = (torch.tensor(each) for each in (teacher.encode(prompt), response, mask, teacher.kinds(response, mask)))
    return Student(f"row_{number}", *tensors, torch.tensor(teacher.encode(privileged)))


def weights(engine: "object") -> dict:
    """Return a copy of the weights."""
    return {name: value.full_tensor().clone() for name, value in engine.worker.engine.module.state_dict().items()}  # type: ignore[attr-defined]


def distance(one: dict, other: dict) -> float:
    """Return the largest difference of two sets of weights."""
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def logits(model: "object", prompt: "object", response: "object"):
    """Return the logits that predict a response after a prompt, by transformers alone."""
    import torch

    with torch.no_grad():
        return model(torch.cat([prompt, response])[None]).logits[0, len(prompt) - 1 : -1]  # type: ignore


def agreement(model: "object", students: list, seen: list) -> float:
    """Return the share of tokens at which the teacher's best is the student's best by transformers."""
    best = [logits(model, each.prompt, each.response).argmax(-1) for each in students]
    same = [(one == other.ids_R_K[:, 0]).tolist() for one, other in zip(best, seen, strict=True)]
    return sum(map(sum, same)) / sum(map(len, same))


def by_hand(model: "object", students: list) -> float:
    """Return the KL of the rows by transformers alone, the mean over the policy's own tokens."""
    import torch

    total, count = 0.0, 0
    for each in students:
        q, p = (logits(model, prompt, each.response).softmax(-1) for prompt in (each.prompt, each.teacher))
        for q_V, p_V, own in zip(q.tolist(), p.tolist(), each.mask.tolist(), strict=True):
            best = sorted(range(len(p_V)), key=lambda v, p_V=p_V: -p_V[v])[:TOP_K]
            rest = [1 - sum(each[v] for v in best) for each in (p_V, q_V)]
            pairs = [*((p_V[v], q_V[v]) for v in best), (rest[0], rest[1])]
            total += own * sum(a * (torch.tensor(a).log() - torch.tensor(b).log()).item() for a, b in pairs)
            count += own
    return total / count


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] == ["lora"])
