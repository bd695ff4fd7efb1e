"""`hiexp rollout`, and the options that it shares with `hiexp eval`."""

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hiexp_verl.cli.options import QUESTIONS_HELP, SEED_HELP, add_episode_arguments, add_verb, say
from hiexp_verl.config import ARMS, SearchConfig, arm_named
from hiexp_verl.domains import Domain, domain_named
from hiexp_verl.errors import HiExpError, first_line
from hiexp_verl.plugin.verl_rollout import rollout_by_verl
from hiexp_verl.protocol import check_format
from hiexp_verl.rollout.as_trained import as_trained, read_budgets
from hiexp_verl.rollout.episode import EpisodeSettings
from hiexp_verl.rollout.policy import state_of
from hiexp_verl.rollout.rollout import TRAJECTORIES, rollout
from hiexp_verl.rollout.spec import RolloutSpec


def add(verbs: Any) -> None:
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
    parser.add_argument("--arm", default="full", help=f"which experience is shown: {', '.join(ARMS)} (default full)")
    parser.add_argument(
        "--by",
        choices=("server", "verl"),
        default="server",
        help="server (default): a model server; verl: verl's validation on this machine, where --max-tokens works only with --hek",
    )


def run_rollout(arguments: argparse.Namespace) -> int:
    """Run the episodes and print their summary."""
    spec = rollout_spec(arguments)
    summary = rollout_by_verl(spec) if arguments.by == "verl" else rollout(spec)
    for name, value in summary.items():
        say(f"{name:>20}  {json.dumps(value)}")
    say(f"{'trajectories':>20}  {spec.out / TRAJECTORIES}")
    return 0


def rollout_spec(arguments: argparse.Namespace) -> RolloutSpec:
    """Return what these arguments ask for. Raises as `play_options`."""
    check_numbers(vars(arguments), "k", "limit")
    arm = arm_named(arguments.arm)
    if arm not in ("full", "none") and not arguments.hek:
        raise HiExpError(f"--arm {arm} shows experience; give a HEK as --hek")
    return RolloutSpec(**play_options(arguments, arguments.seed), questions=arguments.questions, k=arguments.k, arm=arm)


def play_options(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Return the fields of a `PlaySpec`.

    Raises:
        HiExpError: an option is out of range, missing, or does not fit the others.
    """
    played = as_trained(arguments.model, vars(arguments))
    check_numbers({**vars(arguments), **played}, "max_tokens", "top_k", "max_words", "max_chars", "max_model_len", "batch_size")
    if not 0 <= arguments.temperature < math.inf:
        raise HiExpError(f"--temperature must be at least 0, found {arguments.temperature:g}")
    if not 0 < arguments.top_p <= 1:
        raise HiExpError(f"--top-p must be in (0, 1], found {arguments.top_p:g}")
    if arguments.set and not arguments.hek:
        raise HiExpError("--set limits what is shown of a HEK; give one as --hek")
    settings = EpisodeSettings(
        format=check_format(played["format"]),
        instructions=read_instructions(arguments.instructions),
        max_searches=played["max_searches"],
        max_tokens=played["max_tokens"],
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        seed=seed,
    )
    return {
        "model": arguments.model,
        "out": arguments.out,
        "search": replace(
            search_of(arguments, domain_named(played["domain"])),
            top_k=played["top_k"],
            max_words_per_passage=played["max_words"],
            max_chars=played["max_chars"],
        ),
        "domain": played["domain"],
        "hek": arguments.hek,
        "other_domain": arguments.other_domain,
        "encoder": arguments.encoder,
        "budgets": read_budgets(arguments.set, state_of(arguments.model) if arguments.hek else None),
        "settings": settings,
        "limit": arguments.limit,
        "max_model_len": arguments.max_model_len,
        "batch_size": arguments.batch_size,
        "resume": arguments.resume,
        "same_model": arguments.same_model,
    }


def check_numbers(options: Mapping[str, Any], *names: str) -> None:
    """Refuse numbers under 1.

    Raises:
        HiExpError: there is one.
    """
    for name in names:
        value = options[name]
        if value is not None and value < 1:
            raise HiExpError(f"--{name.replace('_', '-')} must be at least 1, found {value}")


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


def search_of(arguments: argparse.Namespace, domain: Domain) -> SearchConfig:
    """Return the search of these arguments.

    Raises:
        HiExpError: the kind of search lacks what it needs, or is given what it does not use.
    """
    if domain.tool is None:
        if found := [option for option in ("corpus", "search_url", "search_encoder") if getattr(arguments, option)]:
            raise HiExpError(f"--{found[0].replace('_', '-')} is for a domain with a tool, and {domain.name} has none; leave it out")
        return SearchConfig()
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
    return search
