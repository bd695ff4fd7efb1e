"""What a spec names, checked and opened: the policy's directory, the tool, the guide of each arm."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiexp_verl.config import Arm
from hiexp_verl.domains import Domain, domain_named
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.blocks import CountTokens, rough_tokens
from hiexp_verl.guide.constitution import constitution_for
from hiexp_verl.guide.episode import Guidance
from hiexp_verl.guide.guide import Guide
from hiexp_verl.guide.mask import Mask
from hiexp_verl.guide.select import Values, values_for
from hiexp_verl.guide.steps import check_steps
from hiexp_verl.hek.opening import open_encoders, open_hek
from hiexp_verl.hek.retrieve import Retriever
from hiexp_verl.hek.store import HEK
from hiexp_verl.models.tokenizer import PolicyTokenizer
from hiexp_verl.models.vllm_process import check_model_dir, context_length
from hiexp_verl.rollout.episode import Client
from hiexp_verl.rollout.spec import PlaySpec
from hiexp_verl.types import Message, Question


@dataclass(frozen=True)
class Opened:
    """The domain, its tool and the experience of a spec."""

    spec: PlaySpec
    engine: Any  # of the domain's tool
    corpus: str  # identity of the engine: the address, or the hash of the file, with that of a dense encoder
    retriever: Retriever | None  # None without a HEK
    tokenizer: PolicyTokenizer | None  # None for a server: token budgets are kept by estimate

    @property
    def domain(self) -> Domain:
        """The domain of the spec."""
        return domain_named(self.spec.domain)

    @property
    def count_tokens(self) -> CountTokens:
        """The count of the policy's tokenizer, or an estimate."""
        return self.tokenizer.count if self.tokenizer is not None else rough_tokens

    def guide(self, arm: Arm) -> Guide | None:
        """Return the guide of an arm, None where it shows nothing.

        Raises:
            HiExpError: it shows a constitution, and the HEK has none.
        """
        if self.retriever is None or arm == "none":
            return None
        assert self.spec.hek is not None
        content_hash = self.retriever.hek.header.content_hash
        values = values_for(self.spec.hek, content_hash, self.spec.budgets)
        fixed = constitution_for(self.spec.hek, content_hash, [arm])
        return Guide(self.retriever, Guidance(self.spec.budgets, arm, count_tokens=self.count_tokens, domain=self.domain), values, fixed)

    def guide_of(self, version: HEK, mask: Mask, values: Values | None, draw: str) -> Guide:
        """Return the guide of another version of the HEK, with the same encoder, which leaves out by chance and explores."""
        assert self.retriever is not None
        retriever = Retriever(version, self.retriever.encoder)
        return Guide(
            retriever, Guidance(self.spec.budgets, count_tokens=self.count_tokens, mask=mask, draw=draw, domain=self.domain), values
        )


def open_spec(spec: PlaySpec, tokenizer: PolicyTokenizer | None) -> Opened:
    """Open domain, HEK, encoders and tool; a retrieval server must answer.

    Raises:
        HiExpError: one of them cannot be opened.
    """
    config, domain = spec.config(), domain_named(spec.domain)
    domain.check()
    check_steps(spec.budgets.tool, domain)
    hek = open_hek(config)
    encoder, search_encoder = open_encoders(config, hek)
    engine, corpus = domain.tool.open(spec.search, search_encoder) if domain.tool is not None else (None, "")
    retriever = Retriever(hek, encoder) if hek is not None and encoder is not None else None
    return Opened(spec, engine, corpus, retriever, tokenizer)


def check_policy(model: str, questions: Sequence[Question], spec: PlaySpec) -> PolicyTokenizer | None:
    """Check a model directory and that the longest question's prompt fits; return its tokenizer, None for a server.

    Raises:
        HiExpError: it holds no model, or a prompt is too long.
    """
    model_dir = Path(model)
    if not model_dir.is_dir():
        return None
    check_model_dir(model_dir)
    tokenizer, domain = PolicyTokenizer(model_dir), domain_named(spec.domain)
    longest = max(questions, key=lambda q: len(q.question))
    length = tokenizer.count_prompt(domain.first_messages(longest.question, spec.settings.format, spec.settings.instructions))
    room = min(spec.max_model_len, context_length(model_dir)) - spec.settings.max_tokens
    if length > room:
        raise HiExpError(
            f"the prompt of question {longest.id} has {length} tokens, and the model has room for {max(room, 0)} beside an answer; "
            "raise --max-model-len, lower --max-tokens, or leave the question out"
        )
    return tokenizer


_CONTINUED = (
    "hiexp.tool.steps needs one that continues the assistant's turn as it was written: use vLLM and a chat template that leaves turns as "
    "they are, or `hiexp rollout --by verl`, or leave the setting out"
)


async def check_continues(client: Client) -> None:
    """Check by the tokens of three prompts that a server continues a turn of the assistant, and keeps the blank line at its end.

    A server that cannot begins another turn, and says nothing.

    Raises:
        HiExpError: it does not, or does not say how many tokens a prompt has.
    """
    begun = "So"  # a token of most tokenizers, two at most; what ends a turn and begins the next has more
    turns: list[list[Message]] = [[], *([{"role": "assistant", "content": text}] for text in (begun, f"{begun}\n\n"))]
    try:
        read = [(await client.chat([{"role": "user", "content": "?"}, *turn], max_tokens=1)).prompt_tokens for turn in turns]
    except HiExpError as error:
        raise HiExpError(f"{error}; {_CONTINUED}") from error
    if not (1 <= read[1] - read[0] <= 2 and read[1] < read[2]):
        raise HiExpError(f"the server of {client.model} begins a turn anew, or rewrites it (prompts of {read} tokens); {_CONTINUED}")
