"""Does the model's chat template take several calls of one turn? Llama 3's raises, and verl would find out in an episode."""

from pathlib import Path

from jinja2 import TemplateError
from omegaconf import DictConfig
from transformers import AutoConfig
from verl.utils import hf_processor, hf_tokenizer
from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

from hiexp_verl.errors import HiExpError
from hiexp_verl.plugin.agent_loop import HiExpAgentLoop
from hiexp_verl.types import Message


def check_parallel_calls(config: DictConfig) -> None:
    """Check that two calls of one turn can be rendered, where there may be two; of a hub name or a remote path verl finds out.

    Raises:
        HiExpError: the template refuses them.
    """
    model, rollout = Path(config.actor_rollout_ref.model.path).expanduser(), config.actor_rollout_ref.rollout
    calls = rollout.multi_turn.max_parallel_calls
    if calls < 2 or not model.exists() or hasattr(HiExpAgentLoop, "apply_chat_template"):  # verl 0.9.0 renders the answers alone
        return
    builder = create_continuous_token_builder(
        hf_tokenizer(str(model)),
        hf_model_type=AutoConfig.from_pretrained(str(model)).model_type,
        chat_template_kwargs={str(key): value for key, value in (config.data.get("apply_chat_template_kwargs") or {}).items()},
        processor=hf_processor(str(model)),
    )
    asked: list[Message] = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Two searches."}]
    answers: list[Message] = [{"role": "tool", "content": "me"}, {"role": "tool", "content": "you"}]
    try:
        builder.tokenize_context_incremental_messages(asked, asked + answers)
    except TemplateError as error:
        raise HiExpError(
            f"the chat template in {model} does not take {calls} calls of one turn ({str(error)[:200]}); "
            "set actor_rollout_ref.rollout.multi_turn.max_parallel_calls=1"
        ) from error
