"""The chat templates that episodes are checked under, each with a tokenizer.

Real, where the asset is in the cache: SmolLM2 ("smollm2-135m") and Qwen2.5 ("qwen-0.5b"), vocabulary, merges, added tokens and
template out of the published GGUF. One thing a GGUF does not tell: which of Qwen's `<|...|>` are special; here all of them are.
Made here: "smollm2", "qwen2.5", "qwen3" and "llama3": templates of our own with the family's structure (tests/templates), on a tiny
byte-level BPE with the family's special tokens and its rule of where a token may not go on. Qwen3 and Llama 3 cannot be had for real.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from hiexp_verl.io.files import cache_dir
from tests.support.paths import TEMPLATES

# GPT-2's rule keeps punctuation and the line break after it apart; that of Qwen and Llama 3 makes one token of ">\n".
WORDS = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
WORDS_WITH_BREAKS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
MERGES = """
    h e|i n|e r|a n|o u|r e|o n|s e|a r|c h|u l|o f|K a|b ul|Ka bul|se ar|sear ch|an s|w er|ans wer|t h|th in|thin k|Ġ t|Ġt he|Ġ of
    Ċ Ċ|> Ċ|< /|< t|{ "|" :|} Ċ|q u|qu er|quer y|D o|Do c|c ou|cou n|coun t|r y|count ry|. Ċ|- Ġ
"""
CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CALLS = ("<tool_call>", "</tool_call>")
HEADERS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>")


@dataclass(frozen=True)
class Family:
    """One template: what verl takes its model for, how its tokenizer is made, what it closes a turn with."""

    model_type: str  # of config.json; verl 0.9.1 chooses its way of joining turns by it
    special: tuple[str, ...]
    added: tuple[str, ...] = ()  # one token each, but not special: decoding keeps them
    words: str = WORDS_WITH_BREAKS
    eos: str = "<|im_end|>"
    bos: str | None = None


FAMILIES = {
    "smollm2": Family("llama", (*CHATML, "<repo_name>", "<file_sep>", "<jupyter_text>"), words=WORDS, bos="<|im_start|>"),
    "qwen2.5": Family("qwen2", (*CHATML, "<|fim_prefix|>"), CALLS),
    "qwen3": Family("qwen3", CHATML, (*CALLS, "<tool_response>", "</tool_response>", "<think>", "</think>")),
    "llama3": Family("llama", HEADERS, eos="<|eot_id|>", bos="<|begin_of_text|>"),
}
# Tokens of others (Mistral, Gemma, DeepSeek, Kimi, GLM, MiniMax, code models): no template, only what a text must not turn into.
OTHERS = """
    <s> </s> <unk> <bos> <eos> <pad> <mask> <start_of_turn> <end_of_turn> <start_of_image> <unused0> <2mass> [multimodal] [INST] [/INST]
    [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [AVAILABLE_TOOLS] [TOOL_CALLS] [TOOL_RESULTS] [/TOOL_RESULTS] [IMG_BREAK] [THINK] [/THINK] [CLS]
    [SEP] [MASK] [gMASK] [sMASK] <sop> <eop> [BOS] [EOS] [PAD] [start_header_id] [end_header_id] [EOT] <|im_user|> <|im_middle|>
    <|tool_calls_section_begin|> <\uff5cUser\uff5c> <\uff5cAssistant\uff5c> <\uff5cbegin\u2581of\u2581sentence\uff5c> [e~[ ]~b] ]~!b[
    <|start|> <|channel|> <|message|> <|call|> <|return|> <|START_OF_TURN_TOKEN|> <BOS_TOKEN> <SPECIAL_10> <repo_name> <gh_stars>
    <think> </think> <answer> </answer> <search> </search> <information> <tool_response> <|reserved_special_token_0|> <fim_prefix>
"""
REAL = {"smollm2-135m": "llama", "qwen-0.5b": "qwen2"}


def model_dir(name: str) -> Path:
    """Return where the real tokenizer and model of that name are, if they are."""
    return cache_dir() / name


def real() -> list[Any]:
    """Return the real families as parameters of a test, each skipped where its asset is not in the cache."""
    absent = {name: not (model_dir(name) / "tokenizer.json").is_file() for name in REAL}
    skip = {name: pytest.mark.skipif(absent[name], reason=f"the asset {name} is not in the cache") for name in REAL}
    return [pytest.param(name, marks=[pytest.mark.assets, skip[name]]) for name in REAL]


def families() -> list[Any]:
    """Return every family as a parameter of a test."""
    return [*FAMILIES, *real()]


def model_type(name: str) -> str:
    return REAL[name] if name in REAL else FAMILIES[name].model_type


@cache
def tokenizer_of(name: str) -> Any:
    """Return the family's tokenizer, with its chat template."""
    if name in REAL:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(model_dir(name)))
    return _tiny(FAMILIES[name], (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8").removesuffix("\n"))


def tokenizer_of_others() -> Any:
    """Return a tokenizer that knows all tokens of `OTHERS`."""
    return _tiny(Family("llama", tuple(OTHERS.split()), eos="</s>"), "")


def _tiny(family: Family, template: str) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    merges = [tuple(pair.split()) for line in MERGES.split("\n") for pair in line.split("|") if pair.strip()]
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(dict.fromkeys(pieces))}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(family.words), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in family.special])
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in family.added])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=family.eos, pad_token=family.special[0], bos_token=family.bos)
    fast.chat_template = template
    return fast
