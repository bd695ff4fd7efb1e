"""A short warm start: teach a small model to search and to read experience, on transcripts of questions whose hops are known.

Fine-tunes all weights on the model's own tokens only. Example:

    python -m recipes.demo_data smollm2-135m factbook
    python -m recipes.demo_data --write-sets DIR
    python -m recipes.cpu_demo.warm_start --model MODEL --questions DIR/lay_words/warm.jsonl \\
        --corpus DIR/lay_words/corpus.jsonl --limit 160 --out POLICY
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiexp_verl import protocol
from hiexp_verl.config import HiExpConfig, SearchConfig, ToolConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide import blocks
from hiexp_verl.io.datasets import read_corpus, read_questions
from hiexp_verl.io.files import cache_dir, digest_of, sha256_of, write_jsonl
from hiexp_verl.models.vllm_process import cpu_dtype
from hiexp_verl.search.bm25 import BM25Search
from hiexp_verl.types import Message
from recipes.cpu_demo import plans, transcripts
from recipes.demo_data.factbook import lay_words

IGNORED = -100  # the label that torch's cross entropy leaves out
WRITERS = (transcripts, plans, lay_words, protocol, blocks)  # the modules that write the transcripts


@dataclass(frozen=True)
class Example:
    """A transcript as tokens; labels are IGNORED wherever the text is not the model's own."""

    ids_T: list[int]
    labels_T: list[int]


@dataclass(frozen=True)
class Training:
    """How the model is trained on the transcripts."""

    epochs: int = 1
    batch: int = 2
    lr: float = 5e-4
    seed: int = 0
    precision: str = "float32"  # of the matrix products; weights are float32 while training


def main() -> int:
    """Parse, train, save; 1 after a user's fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face directory to start from")
    parser.add_argument("--questions", type=Path, required=True, help="warm.jsonl of the lay words (python -m recipes.demo_data)")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="directory for the trained model; must not exist")
    parser.add_argument("--limit", type=int, default=80, help="transcripts (default 80)")
    parser.add_argument("--epochs", type=int, default=Training.epochs)
    parser.add_argument("--batch", type=int, default=Training.batch)
    parser.add_argument("--lr", type=float, default=Training.lr)
    parser.add_argument("--top-k", type=int, default=2, help="documents per search; as in the rollouts that follow")
    parser.add_argument("--max-words", type=int, default=32, help="words per document")
    parser.add_argument("--max-chars", type=int, default=1200, help="characters per tool message")
    parser.add_argument(
        "--position", choices=("before", "after"), default=ToolConfig().position, help="of E1; as hiexp.tool.position in what follows"
    )
    parser.add_argument("--seed", type=int, default=Training.seed)
    parser.add_argument(
        "--precision",
        choices=("bfloat16", "float32"),
        default=cpu_dtype(),
        help="of the matrix products (default: what this CPU is fast in); weights are float32 while training",
    )
    a = parser.parse_args()
    reading = SearchConfig(top_k=a.top_k, max_words_per_passage=a.max_words, max_chars=a.max_chars)
    try:
        if a.out.exists():
            raise HiExpError(f"{a.out} exists already; choose another output directory")
        if not (a.model / "config.json").is_file():
            raise HiExpError(f"{a.model} has no config.json; fetch one with python -m recipes.demo_data")
        search = BM25Search(read_corpus(a.corpus))
        questions, tool = read_questions(a.questions), ToolConfig(position=a.position)
        written = transcripts.transcripts_of(questions, search, a.limit, HiExpConfig(seed=a.seed, search=reading, tool=tool))
        if not written:
            raise HiExpError(f"no transcript can be written from {a.questions}; give warm.jsonl of the lay words")
        warm_start(a.model, written, Training(a.epochs, a.batch, a.lr, a.seed, a.precision), a.out)
    except HiExpError as error:
        print(f"warm_start: {error}", file=sys.stderr)
        return 1
    return 0


def warm_start(base: Path, written: Sequence[Sequence[Message]], training: Training, out: Path) -> None:
    """Train the model of a directory on transcripts; save model, tokenizer and transcripts."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(training.seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    examples = [tokens_of(messages, tokenizer) for messages in written]
    trained = sum(label != IGNORED for example in examples for label in example.labels_T)
    print(f"{len(examples)} transcripts, {sum(len(e.ids_T) for e in examples)} tokens, {trained} of them the model's own")
    train(model, examples, training)
    save(model.to(torch.bfloat16), tokenizer, written, out)
    print(f"saved {out}")


def cached_model(base: Path, questions: Path, corpus: Path, settings: Mapping[str, Any]) -> Path:
    """Return where the model warm-started from these inputs is cached; the folder's name is the hash of their content."""
    code = [Path(str(module.__file__)) for module in (sys.modules[__name__], *WRITERS)]
    weights = sorted(each for each in base.iterdir() if each.is_file())
    content = digest_of(
        sha256_of(*code), sha256_of(questions), sha256_of(corpus), sha256_of(*weights), {**settings, "precision": cpu_dtype()}
    )
    return cache_dir() / "warm_start" / content.hex()


def tokens_of(messages: Sequence[Message], tokenizer: Any) -> Example:
    """Tokenise a transcript through the chat template; only assistant content and its end token carry a label.

    Raises:
        HiExpError: the template rewrites earlier messages, so that the model's own text cannot be located.
    """

    def render(count: int, opened: bool) -> str:
        return tokenizer.apply_chat_template(list(messages[:count]), tokenize=False, add_generation_prompt=opened)

    whole = render(len(messages), False)
    spans = []
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            before, after = render(i, True), render(i + 1, False).rstrip("\n")
            if not (after.startswith(before) and whole.startswith(after)):
                raise HiExpError("the chat template rewrites earlier messages; a warm start needs one that only appends")
            spans.append((len(before), len(after)))
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    own_T = [any(start <= left and right <= end for start, end in spans) for left, right in encoded["offset_mapping"]]
    ids_T = encoded["input_ids"]
    return Example(ids_T, [token if own else IGNORED for token, own in zip(ids_T, own_T, strict=True)])


def train(model: Any, examples: Sequence[Example], training: Training) -> None:
    """Run AdamW with a linear decay to zero; print the loss of every step."""
    import torch
    from tqdm import tqdm

    batches = list(_batches(examples, training.batch, training.epochs, training.seed))
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.lr, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / len(batches))
    started = time.monotonic()
    losses = []
    model.train()
    with tqdm(total=sum(len(batch) for batch in batches), desc="warm start", unit="transcript") as bar:
        for batch in batches:
            own = sum(label != IGNORED for example in batch for label in example.labels_T)
            losses.append(0.0)
            # One transcript at a time: nothing is padded, and a big batch's memory traffic costs more than it saves here.
            for example in batch:
                loss = _loss_sum(model, example, training.precision) / own
                loss.backward()
                losses[-1] += loss.item()
                bar.update()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            bar.set_postfix(loss=f"{losses[-1]:.2f}")
    print(f"loss by step: {' '.join(f'{loss:.2f}' for loss in losses)}; {time.monotonic() - started:.0f} s")


def _loss_sum(model: Any, example: Example, precision: str) -> Any:
    """Return the summed cross entropy of the model's own tokens; logits are made for these alone."""
    import torch

    labels_T = torch.tensor(example.labels_T[1:])
    places_O = (labels_T != IGNORED).nonzero()[:, 0]
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        logits_O_V = model(input_ids=torch.tensor([example.ids_T]), logits_to_keep=places_O, use_cache=False).logits[0]
    return torch.nn.functional.cross_entropy(logits_O_V.float(), labels_T[places_O], reduction="sum")


def save(model: Any, tokenizer: Any, written: Sequence[Sequence[Message]], out: Path) -> None:
    """Write model, tokenizer and the transcripts beside each other, in full or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        model.save_pretrained(work)
        tokenizer.save_pretrained(work)
        write_jsonl(work / "transcripts.jsonl", ({"messages": messages} for messages in written))
        os.chmod(work, 0o755)
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _batches(examples: Sequence[Example], size: int, epochs: int, seed: int) -> Iterator[list[Example]]:
    draw = random.Random(seed)
    for _ in range(epochs):
        shuffled = draw.sample(examples, len(examples))
        yield from (shuffled[i : i + size] for i in range(0, len(shuffled), size))


if __name__ == "__main__":
    sys.exit(main())
