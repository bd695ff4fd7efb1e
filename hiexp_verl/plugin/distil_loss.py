"""The loss of self-distillation, as verl's engine calls it in its workers.

Per token, with p the teacher's and q the student's probabilities of the teacher's top k, and of all others as one bucket:

    KL = sum_v min(p_v (log p_v - log q_v) - p_v + q_v, clip)

Without a clip -p + q adds up to nothing. With it no term is below 0: where a large term is cut, the others do not drive the student
away from the teacher. Terms of p (log p - log q) alone do: those with q > p are negative and never cut.
It is a supervised loss: as an advantage a top-k KL has no expected gradient. verl's own PPO loss stays what it is for every batch
that is no part of a round.

Source: Search-E1 (arXiv:2605.22511). Its k and clip are not known; ours are settings.
"""

from typing import Any

import torch
from verl.utils import tensordict_utils as tu
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import no_padding_2_padding

from hiexp_verl.internalise.kinds import KINDS

MODE = "hiexp_round"  # of a batch: "look", "check", "learn"; none: verl's own update
OF_TOKENS = ("kl", "teacher_mass", "student_mass", "overlap", "clip_fraction")
DRIFT = "hiexp_drift"
_TINY = 1e-8


def loss(
    actor: Any,
    top_k: int,
    clip: float,
    model_output: dict[str, Any] | None = None,
    data: Any = None,
    dp_group: Any = None,
    student_logits: torch.Tensor | None = None,
    data_format: str = "thd",
) -> Any:
    """Return what verl's engine asks of a loss: fields of each token where it is given logits, else the loss and its metrics."""
    mode = tu.get_non_tensor_data(data, MODE, "")
    if not mode:
        return ppo_loss(actor, model_output, data, dp_group)
    if student_logits is not None:
        return _of_tokens(mode, torch.log_softmax(student_logits.float(), dim=-1), data, top_k, clip)
    if mode != "learn":
        return torch.zeros(()), {}
    assert model_output is not None
    mask_B_R = data["response_mask"].to_padded_tensor(False).bool()
    found = {name: no_padding_2_padding(model_output[f"hiexp_{name}"], data)[mask_B_R] for name in OF_TOKENS}
    total = found["kl"].sum() / data["batch_num_tokens"] * data["dp_size"]
    return total, sums_of(found, data["hiexp_kind"].to_padded_tensor(0)[mask_B_R])


def _of_tokens(mode: str, log_q_1_N_V: torch.Tensor, data: Any, top_k: int, clip: float) -> dict[str, torch.Tensor]:
    """Return the fields of each token: at a look the top k, else the KL to what was seen; at a check also that to the round's start."""
    if mode == "look":
        values, ids = log_q_1_N_V.topk(top_k, dim=-1)
        return {f"hiexp_p{k}": values[..., k] for k in range(top_k)} | {f"hiexp_i{k}": ids[..., k].double() for k in range(top_k)}
    found = token_kl(log_q_1_N_V, data["hiexp_p"].values()[None], data["hiexp_id"].values()[None], clip)
    fields = {f"hiexp_{name}": value for name, value in found.items()}
    if mode == "check":
        start = data["hiexp_start_p"].values()[None], data["hiexp_start_id"].values()[None]
        fields[DRIFT] = token_kl(log_q_1_N_V, *start, float("inf"))["kl"]
    return fields


def token_kl(log_q_1_N_V: torch.Tensor, log_p_1_N_K: torch.Tensor, ids_1_N_K: torch.Tensor, clip: float) -> dict[str, torch.Tensor]:
    """Return for each token `OF_TOKENS`: the forward KL with a bucket for the rest, the mass in the teacher's top k of both, the share
    of the teacher's top k that is in the student's, and the share of terms that was clipped.

    Args:
        log_q_1_N_V: the student's log-probabilities.
        log_p_1_N_K: the teacher's at its top k, whose ids are `ids_1_N_K`.
        clip: most of one vocabulary entry: rare words of style would outweigh the others.
    """
    ids_1_N_K = ids_1_N_K.long()
    log_q_1_N_K = log_q_1_N_V.gather(-1, ids_1_N_K)
    p_1_N_K, q_mass = log_p_1_N_K.exp(), log_q_1_N_K.exp().sum(-1)
    p_mass = p_1_N_K.sum(-1)
    rest_p, rest_q = (1 - p_mass).clamp_min(_TINY), (1 - q_mass).clamp_min(_TINY)
    log_p, log_q = (torch.cat(each, -1) for each in ((log_p_1_N_K, rest_p.log()[..., None]), (log_q_1_N_K, rest_q.log()[..., None])))
    terms = log_p.exp() * (log_p - log_q) - log_p.exp() + log_q.exp()
    least = log_q_1_N_V.detach().topk(ids_1_N_K.shape[-1], dim=-1).values[..., -1:]
    return {
        "kl": terms.clamp_max(clip).sum(-1),
        "teacher_mass": p_mass,
        "student_mass": q_mass.detach(),
        "overlap": (log_q_1_N_K.detach() >= least).float().mean(-1),
        "clip_fraction": (terms > clip).float().mean(-1),
    }


def sums_of(found: dict[str, torch.Tensor], kinds: torch.Tensor) -> dict[str, float]:
    """Return sums over tokens and their counts, which add up over micro-batches and ranks; `means_of` divides them."""
    sums = {f"{name}/sum": float(value.detach().sum()) for name, value in found.items()} | {"tokens": float(len(kinds))}
    for number, kind in enumerate(KINDS):
        of_kind = kinds == number
        sums |= {f"kl_{kind}/sum": float(found["kl"].detach()[of_kind].sum()), f"kl_{kind}/tokens": float(of_kind.sum())}
    return {f"hiexp/distil/{name}": value for name, value in sums.items()}


def means_of(sums: dict[str, float]) -> dict[str, float]:
    """Return means a token; those of a kind without tokens are left out."""
    total = sums.get("hiexp/distil/tokens", 0.0)
    names = (name.removesuffix("/sum") for name in sums if name.endswith("/sum"))
    counts = {name: sums.get(f"{name}/tokens", total) for name in names}
    return {name: sums[f"{name}/sum"] / count for name, count in counts.items() if count}
