"""GGUF to Hugging Face directory: weights, tokenizer, chat template, generation config, for transformers and vLLM alike."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiexp_verl.errors import HiExpError

CONVERSION = 2  # another one makes other files of the same GGUF
_CONVERTER = ("torch", "transformers", "gguf", "accelerate")


@dataclass(frozen=True)
class SpecialTokens:
    """The special tokens that the chat template really uses (a GGUF's own are lost or wrong after loading)."""

    bos: str | None
    eos: str
    pad: str


def check_converter() -> None:
    """Make sure that what the conversion needs is installed.

    Raises:
        HiExpError: a package is missing.
    """
    missing = [package for package in _CONVERTER if importlib.util.find_spec(package) is None]
    if missing:
        raise HiExpError(f"converting a GGUF model needs {', '.join(missing)}; run pip install {' '.join(missing)}")


def convert_gguf(gguf: Path, out: Path, tokens: SpecialTokens) -> None:
    """Write the GGUF model as a Hugging Face directory (bfloat16 safetensors) into the existing directory `out`.

    bfloat16, because the served and the trained weights are then the same numbers from the first step, at half the size;
    the 4-bit weights of the source carry less precision than that anyway.

    Raises:
        HiExpError: the file cannot be read as a GGUF model.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**source)
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16)
    except (ValueError, KeyError, OSError) as error:
        raise HiExpError(f"{gguf.name} cannot be read as a GGUF model ({error}); fetch the asset again") from error

    _restore_tokenizer(tokenizer, gguf)
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = tokens.bos, tokens.eos, tokens.pad
    tokenizer.padding_side = "left"  # what generation needs; training pads by itself
    tokenizer.model_max_length = model.config.max_position_embeddings
    tokenizer.clean_up_tokenization_spaces = False  # a GGUF has no such field, and defaults differ between versions

    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    for key, value in ids.items():
        setattr(model.config, key, value)
    model.generation_config = GenerationConfig(**ids)
    _tie_embeddings(model)
    _forget_quantization(model)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _restore_tokenizer(tokenizer: Any, gguf: Path) -> None:
    """Give a byte-level tokenizer what transformers leaves out when it reads a GGUF: tokens of their own, and the split of digits.

    Of Qwen2.5's 22 added tokens it keeps three, and `<tool_call>` falls to pieces that the model never saw. SmolLM2 has its
    numbers split digit by digit. A GGUF does not mark which added tokens are special: all that look like `<|control|>` are.
    """
    from gguf import GGUFReader, TokenType
    from tokenizers import decoders, pre_tokenizers
    from transformers import AddedToken

    fields = GGUFReader(gguf).fields
    read = {name: field.contents() for name in ("tokens", "token_type", "pre") if (field := fields.get(f"tokenizer.ggml.{name}"))}
    special_of = {TokenType.CONTROL: True, TokenType.USER_DEFINED: False}
    typed = zip(read["tokens"], read["token_type"], strict=True)
    tokenizer.add_tokens([AddedToken(text, special=special_of[kind], normalized=False) for text, kind in typed if kind in special_of])
    tokenizer.backend_tokenizer.decoder = decoders.ByteLevel()
    if read.get("pre") == "smollm":
        split = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)


def _tie_embeddings(model: Any) -> None:
    """Share one matrix for input and output, as the models here were trained.

    Some GGUF files store both, quantised differently, and load untied; the output matrix is the finer one.
    """
    model.config.tie_word_embeddings = True
    model.get_input_embeddings().weight = model.get_output_embeddings().weight
    model.tie_weights()


def _forget_quantization(model: Any) -> None:
    """Drop the traces of the GGUF reader, or newer transformers refuse to save the (dequantised) weights."""
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
