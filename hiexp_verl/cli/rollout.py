"""`hiexp rollout`.

What `hiexp rollout` does with its arguments, and what `hiexp eval` does with the same ones."""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hiexp_verl.cli.options import QUESTIONS_HELP, SEED_HELP, add_episode_arguments, add_verb
from hiexp_verl.config import ARMS, Arm, Budgets, HiExpConfig, SearchConfig
from hiexp_verl.errors import HiExpError, first_line
from hiexp_verl.guide.blocks import rough_tokens
from hiexp_verl.guide.guide import Guide
from hiexp_verl.hek.opening import open_encoders, open_hek
from hiexp_verl.hek.retrieve import Retriever
from hiexp_verl.hek.store import HEK
from hiexp_verl.io.datasets import read_questions
from hiexp_verl.io.files import make_folder, sha256_of
from hiexp_verl.models.chat import open_model
from hiexp_verl.models.encoder import Encoder
from hiexp_verl.models.tokenizer import PolicyTokenizer
from hiexp_verl.models.vllm_process import check_model_dir, context_length
from hiexp_verl.plugin.verl_rollout import rollout_by_verl
from hiexp_verl.protocol import check_format, first_messages
from hiexp_verl.rollout.as_trained import play_as_trained, read_budgets
from hiexp_verl.rollout.episode import EpisodeSettings
from hiexp_verl.rollout.policy import find_policy, state_of
from hiexp_verl.rollout.rollout import check_output, rollout
from hiexp_verl.search import SearchEngine, open_engine
from hiexp_verl.search.http import HttpSearch
from hiexp_verl.types import Question


def add_rollout(verbs: Any) -> None:
    """Add the verb."""
    epilog = (
        "example: hiexp rollout --questions train.jsonl --corpus corpus.jsonl --model DIR --k 4 --out outputs/rollouts\n"
        "         ... --search dense --corpus corpus.jsonl --search-encoder ENCODER_DIR\n"
        "         ... --search http --search-url http://HOST:8000/retrieve     (`hiexp serve-search` is such a server)"
    )
    parser = add_verb(verbs, "rollout", run_rollout, "Run K episodes of the search agent on every question.", epilog)
    parser.add_argument("--questions", type=Path, required=True, help=QUESTIONS_HELP)
    parser.add_argument("--limit", type=int, help="only the first N questions")
    add_episode_arguments(parser, temperature=1.0)
    parser.add_argument("--seed", type=int, default=0, help=SEED_HELP)
    parser.add_argument("--k", type=int, default=4, help="episodes per question (default 4; the paper's builds use about 8)")
    parser.add_argument("--out", type=Path, required=True, help="directory for trajectories.jsonl and summary.json")
    parser.add_argument("--arm", default="full", choices=ARMS, help="which experience is shown (default full)")
    parser.add_argument(
        "--by",
        choices=("server", "verl"),
        default="server",
        help="verl: by a verl validation run on this machine, where --max-tokens needs --hek",
    )


def run_rollout(arguments: argparse.Namespace) -> int:
    """Run the episodes and print their summary."""

    print(rollout_command(arguments))
    return 0


EPISODE_NUMBERS = ("max_tokens", "top_k", "max_words", "max_chars", "max_model_len")


def rollout_command(arguments: argparse.Namespace) -> str:
    """Check everything that is cheap to check, then serve the model and play; return the summary as text.

    Raises:
        HiExpError: questions, search, model or HEK are not usable.
    """
    play_as_trained(arguments)
    check_numbers(arguments, "k", "limit", *EPISODE_NUMBERS)
    check_sampling(arguments.temperature, arguments.top_p)
    check_output(arguments.out, arguments.resume)
    questions = read_questions(arguments.questions)[: arguments.limit]
    run = run_settings(arguments, arguments.arm)
    arguments.model, name, policy = find_policy(arguments.model, arguments.out)
    if arguments.by == "verl":
        return _text(rollout_by_verl(questions, arguments, run), arguments.out)
    tokenizer = check_policy(arguments, questions)
    hek = open_hek(run)
    encoder, search_encoder = open_encoders(run, hek)
    search = open_search(run.search, search_encoder)
    guide = None
    if hek is not None and encoder is not None:
        guide = open_guide(hek, encoder, tokenizer, Budgets(run.prompt, run.tool), run.arm)
    settings = episode_settings(arguments)
    make_folder(arguments.out)
    with open_model(arguments.model, max_model_len=arguments.max_model_len, name=name) as client:
        summary = rollout(
            questions,
            client,
            search,
            settings,
            arguments.k,
            arguments.out,
            arguments.resume,
            guide,
            corpus=identify_search(run.search, search_encoder),
            policy=policy,
            same_policy=arguments.same_model,
        )
    return _text(summary, arguments.out)


def check_numbers(arguments: argparse.Namespace, *names: str) -> None:
    """Refuse numbers under 1.

    Raises:
        HiExpError: there is one.
    """
    for name in names:
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise HiExpError(f"--{name.replace('_', '-')} must be at least 1, found {value}")


def check_sampling(temperature: float, top_p: float) -> None:
    """Refuse what no server samples with.

    Raises:
        HiExpError: the temperature is negative, or top-p not in (0, 1].
    """
    if not 0 <= temperature < math.inf:
        raise HiExpError(f"--temperature must be at least 0, found {temperature:g}")
    if not 0 < top_p <= 1:
        raise HiExpError(f"--top-p must be in (0, 1], found {top_p:g}")


def check_policy(arguments: argparse.Namespace, questions: Sequence[Question]) -> PolicyTokenizer | None:
    """Check a model directory and that the prompts fit; return its tokenizer, None for a server.

    Raises:
        HiExpError: it holds no model, or a prompt is too long.
    """
    model_dir = Path(arguments.model)
    if not model_dir.is_dir():
        return None
    check_model_dir(model_dir)
    tokenizer = PolicyTokenizer(model_dir)
    room = min(arguments.max_model_len, context_length(model_dir)) - arguments.max_tokens
    check_prompts(questions, tokenizer, episode_settings(arguments), room)
    return tokenizer


def read_instructions(path: Path | None) -> str:
    """Return the text of the file, "" for none.

    Raises:
        HiExpError: it is not there, not text, or empty.
    """
    if path is None:
        return ""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise HiExpError(f"--instructions {path} cannot be read ({first_line(error)}); give a text file") from error
    if not text:
        raise HiExpError(f"--instructions {path} is empty; write the system prompt into it, or leave the option out")
    return text


def episode_settings(arguments: argparse.Namespace) -> EpisodeSettings:
    """Return how episodes are played."""
    return EpisodeSettings(
        format=check_format(arguments.format),
        instructions=read_instructions(arguments.instructions),
        max_searches=arguments.max_searches,
        max_tokens=arguments.max_tokens,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        seed=arguments.seed,
        top_k=arguments.top_k,
        max_words_per_passage=arguments.max_words,
        max_chars=arguments.max_chars,
    )


def run_settings(arguments: argparse.Namespace, arm: Arm = "full") -> HiExpConfig:
    """Return what training calls `hiexp:` for the HEK, its budgets and the search of these arguments.

    Raises:
        HiExpError: the kind of search lacks what it needs, or is given what it does not use; a budget is not usable.
    """
    search = SearchConfig(engine=arguments.search, corpus=arguments.corpus, url=arguments.search_url, encoder=arguments.search_encoder)
    if search.engine == "http":
        if not search.url or search.corpus:
            raise HiExpError("--search http asks a retrieval server: give its address as --search-url, and no --corpus")
    elif not search.corpus or search.url:
        raise HiExpError(f"--search {search.engine} needs --corpus, a JSONL of id, title, text; --search-url is for --search http")
    elif search.corpus.startswith(("http://", "https://")):
        raise HiExpError(f"--corpus {search.corpus} is an address; give it as --search http --search-url {search.corpus}")
    if search.encoder and search.engine != "dense":
        raise HiExpError(f"--search-encoder is for --search dense, found --search {search.engine}; leave it out")
    if search.engine == "dense" and not (search.encoder or arguments.encoder or arguments.hek):
        raise HiExpError("--search dense needs an encoder; give --search-encoder, a directory or a name")
    hek = str(arguments.hek) if arguments.hek else None
    if arm not in ("full", "none") and hek is None:
        raise HiExpError(f"--arm {arm} shows experience; give a HEK as --hek")
    if arguments.set and hek is None:
        raise HiExpError("--set limits what is shown of a HEK; give one as --hek")
    budgets = read_budgets(arguments.set, state_of(arguments.model) if hek else None)
    block = HiExpConfig(hek=hek, encoder=arguments.encoder, search=search, arm=arm, prompt=budgets.prompt, tool=budgets.tool)
    return replace(block, enabled=hek is not None)


def open_search(settings: SearchConfig, encoder: Encoder | None) -> SearchEngine:
    """Open the engine as training does; a retrieval server must answer."""
    engine = open_engine(settings, encoder)
    if isinstance(engine, HttpSearch):
        engine.check("--search-url")
    return engine


def identify_search(settings: SearchConfig, encoder: Encoder | None) -> str:
    """Return what tells one search from another: the address, or the hash of the file, with that of a dense encoder."""
    if settings.corpus is None:
        return str(settings.url)
    corpus = sha256_of(Path(settings.corpus))
    return corpus if encoder is None else f"{corpus} by {encoder.identity.sha256}"


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


def open_guide(
    hek: HEK,
    encoder: Encoder,
    tokenizer: PolicyTokenizer | None,
    budgets: Budgets,
    arm: Arm,
) -> Guide:
    """Make a HEK ready for episodes; without the policy's tokenizer, budgets are kept by estimate."""
    count_tokens = tokenizer.count if tokenizer is not None else rough_tokens
    return Guide(Retriever(hek, encoder), budgets.prompt, budgets.tool, arm=arm, count_tokens=count_tokens)


def _text(summary: dict[str, Any], out: Path) -> str:
    lines = [f"{name:>20}  {json.dumps(value)}" for name, value in summary.items()]
    return "\n".join([*lines, f"{'trajectories':>20}  {out / 'trajectories.jsonl'}"])
