"""The context that the trainer scores is the one the policy wrote in: on policy the ratio is 1 on every token with loss.

The rollout side computes log-probs as an engine does: turn by turn over a key-value cache that it keeps, as far as the agent loop
sends what it has seen. The trainer's side is one pass over the finished episode, padded as verl pads it. In float64, so that what
is left is no rounding: in float32 the two orders of summing differ by up to 4e-5 with SmolLM2-135M.
"""

import copy

import pytest

pytestmark = pytest.mark.verl
pytest.importorskip("verl")

import torch
from omegaconf import OmegaConf
from verl.utils.torch_functional import logprobs_from_logits

from hiexp_verl.plugin.agent_loop import HiExpAgentLoop
from hiexp_verl.protocol import FORMATS, first_messages, write_call
from tests.support.chat_families import FAMILIES, REAL, model_dir, model_type, real, tokenizer_of
from tests.support.verl_fixtures import RecitingServer, agent_loop, compose, play, write_corpus, write_hek

QUESTION = "What is the capital of the country whose highest point is Noshak?"
TOLERANCE = 1e-5  # of the ratio


class Engine(RecitingServer):
    """Recites as its parent does, and scores what it writes as a serving engine does."""

    def __init__(self, tokenizer, turns, model):
        super().__init__(tokenizer, turns)
        self.model, self.seen, self.cache = model, [], None

    @torch.no_grad()
    def log_probs(self, prompt_ids, ids):
        assert prompt_ids[: len(self.seen)] == self.seen, "the loop only appends"
        new = [*prompt_ids[len(self.seen) :], *ids]
        out = self.model(torch.tensor([new]), past_key_values=self.cache, use_cache=True)
        self.seen, self.cache = prompt_ids + ids, out.past_key_values
        return logprobs_from_logits(out.logits[0, -len(ids) - 1 : -1], torch.tensor(ids)).tolist()


def model_of(family):
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    if family in REAL:
        return AutoModelForCausalLM.from_pretrained(str(model_dir(family)), dtype=torch.float64, attn_implementation="sdpa").eval()
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.5}
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer_of(family)), max_position_embeddings=8192, **sizes)).double().eval()


@torch.no_grad()
def trainers_log_probs(model, output, pad):
    """Return log-probs of the response: one pass, the prompt padded on the left and the response on the right, as verl does."""
    left, right = [pad] * 5, [pad] * 3
    ids_T = torch.tensor([[*left, *output.prompt_ids, *output.response_ids, *right]])
    seen_T = torch.ones_like(ids_T)
    seen_T[:, :5] = 0
    seen_T[:, -3:] = 0
    positions_T = (seen_T.cumsum(-1) - 1).clamp(min=0)
    length = len(output.response_ids)
    logits_TV = model(ids_T, attention_mask=seen_T, position_ids=positions_T).logits[0, -3 - length - 1 : -3 - 1]
    return logprobs_from_logits(logits_TV, ids_T[0, -3 - length : -3])


@pytest.fixture(scope="module")
def flag(tmp_path_factory):
    folder = tmp_path_factory.mktemp("episodes")
    corpus, hek = write_corpus(folder / "corpus.jsonl"), write_hek(folder / "hek", "Name the country.")
    return compose(
        "+hiexp=grpo",
        f"hiexp.search.corpus={corpus}",
        f"hiexp.hek={hek}",
        "hiexp.search.top_k=2",
        "hiexp.prompt.top_k=5",
        "hiexp.tool.min_score=-1.0",
    )


@pytest.fixture(params=[*FAMILIES, real()[0]])
def family(request):
    return request.param


@pytest.mark.parametrize("dialect", FORMATS)
def test_on_policy_the_ratio_is_one_on_every_token_with_loss(flag, family, dialect):
    tokenizer, model = tokenizer_of(family), model_of(family)
    first, second = write_call("Noshak highest point country", dialect), write_call("capital of Afghanistan", dialect)
    cut = tokenizer.encode(f"{second}\nNow", add_special_tokens=False)
    engine = Engine(tokenizer, [f"<think>\nWhich?\n</think>\n\n{first}", cut, "<answer> Kabul </answer>"], model)
    config = OmegaConf.merge(flag, {"actor_rollout_ref": {"rollout": {"multi_turn": {"format": dialect}}}})
    agent = agent_loop(HiExpAgentLoop, config, engine, tokenizer, model_type(family))
    output = play(agent, raw_prompt=first_messages(QUESTION, dialect), extra_info={"question_id": "val-1", "question": QUESTION})
    assert {row["level"] for row in output.extra_fields["hiexp"]["shown"]} == {"e1", "e2", "e3"}
    mask_T = torch.tensor(output.response_mask).bool()
    rollout_T, trainer_T = (
        torch.tensor(output.response_logprobs, dtype=torch.float64),
        trainers_log_probs(model, output, tokenizer.pad_token_id),
    )
    ratio_T = (trainer_T - rollout_T)[mask_T].exp()
    assert len(ratio_T) == sum(map(len, engine.written))
    assert (ratio_T - 1).abs().max() < TOLERANCE
    assert (rollout_T[~mask_T] == 0).all()
    other = copy.deepcopy(output)
    other.prompt_ids.pop(-3)  # one token of the context
    assert ((trainers_log_probs(model, other, tokenizer.pad_token_id) - trainer_T)[mask_T].exp() - 1).abs().max() > 1e-3, (
        "this would be seen"
    )
