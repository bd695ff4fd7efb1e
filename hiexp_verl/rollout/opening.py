"""What a spec names, checked and opened: the policy's directory, the search, the guide of each arm."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hiexp_verl.config import Arm, SearchConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.blocks import rough_tokens
from hiexp_verl.guide.guide import Guide
from hiexp_verl.hek.opening import open_encoders, open_hek
from hiexp_verl.hek.retrieve import Retriever
from hiexp_verl.io.files import sha256_of
from hiexp_verl.models.encoder import Encoder
from hiexp_verl.models.tokenizer import PolicyTokenizer
from hiexp_verl.models.vllm_process import check_model_dir, context_length
from hiexp_verl.protocol import first_messages
from hiexp_verl.rollout.episode import EpisodeSettings
from hiexp_verl.rollout.spec import PlaySpec
from hiexp_verl.search import SearchEngine, open_engine
from hiexp_verl.search.http import HttpSearch
from hiexp_verl.types import Question


@dataclass(frozen=True)
class Opened:
    """The search and the experience of a spec."""

    spec: PlaySpec
    search: SearchEngine
    corpus: str  # what distinguishes the search: the address, or the hash of the file, with that of a dense encoder
    retriever: Retriever | None  # None without a HEK
    tokenizer: PolicyTokenizer | None  # None for a server: token budgets are kept by estimate

    def guide(self, arm: Arm) -> Guide | None:
        """Return the guide of an arm, None where it shows nothing."""
        if self.retriever is None or arm == "none":
            return None
        count_tokens = self.tokenizer.count if self.tokenizer is not None else rough_tokens
        budgets = self.spec.budgets
        return Guide(self.retriever, budgets.prompt, budgets.tool, arm=arm, count_tokens=count_tokens)


def open_spec(spec: PlaySpec, tokenizer: PolicyTokenizer | None) -> Opened:
    """Open HEK, encoders and search; a retrieval server must answer.

    Raises:
        HiExpError: one of them cannot be opened.
    """
    config = spec.config()
    hek = open_hek(config)
    encoder, search_encoder = open_encoders(config, hek)
    search = open_engine(spec.search, search_encoder)
    if isinstance(search, HttpSearch):
        search.check("--search-url")
    retriever = Retriever(hek, encoder) if hek is not None and encoder is not None else None
    return Opened(spec, search, identify_search(spec.search, search_encoder), retriever, tokenizer)


def identify_search(settings: SearchConfig, encoder: Encoder | None) -> str:
    """Return what distinguishes one search from another: the address, or the hash of the file, with that of a dense encoder."""
    if settings.corpus is None:
        return str(settings.url)
    corpus = sha256_of(Path(settings.corpus))
    return corpus if encoder is None else f"{corpus} by {encoder.identity.sha256}"


def check_policy(model: str, questions: Sequence[Question], spec: PlaySpec) -> PolicyTokenizer | None:
    """Check a model directory and that the prompts fit; return its tokenizer, None for a server.

    Raises:
        HiExpError: it holds no model, or a prompt is too long.
    """
    model_dir = Path(model)
    if not model_dir.is_dir():
        return None
    check_model_dir(model_dir)
    tokenizer = PolicyTokenizer(model_dir)
    room = min(spec.max_model_len, context_length(model_dir)) - spec.settings.max_tokens
    check_prompts(questions, tokenizer, spec.settings, room)
    return tokenizer


def check_prompts(questions: Sequence[Question], tokenizer: PolicyTokenizer, settings: EpisodeSettings, room: int) -> None:
    """Check that the longest question's first prompt fits into `room` tokens.

    Raises:
        HiExpError: it does not.
    """
    longest = max(questions, key=lambda q: len(q.question))
    length = tokenizer.count_prompt(first_messages(longest.question, settings.format, settings.instructions))
    if length > room:
        raise HiExpError(
            f"the prompt of question {longest.id} has {length} tokens, and the model has room for {max(room, 0)} beside an answer; "
            "raise --max-model-len, lower --max-tokens, or leave the question out"
        )
