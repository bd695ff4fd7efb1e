"""What `hiexp rollout` does with its arguments."""

import argparse
import json
from pathlib import Path
from typing import Any

from hiexp_verl.config import SearchConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.locate import open_encoder
from hiexp_verl.hek.retrieve import Retriever
from hiexp_verl.hek.store import HEK
from hiexp_verl.jsonl import read_questions
from hiexp_verl.llm import open_model
from hiexp_verl.run.episode import EpisodeSettings
from hiexp_verl.run.experience import Experience
from hiexp_verl.run.protocol import check_format
from hiexp_verl.run.rollout import check_output, rollout
from hiexp_verl.run.verl_rollout import rollout_by_verl
from hiexp_verl.search import SearchEngine, open_engine
from hiexp_verl.search.http import HttpSearch


def rollout_command(arguments: argparse.Namespace) -> str:
    """Check everything that is cheap to check, then serve the model and play; return the summary as text.

    Raises:
        HiExpError: questions, corpus, model or HEK are not usable.
    """
    if arguments.k < 1:
        raise HiExpError(f"--k must be at least 1, found {arguments.k}")
    check_output(arguments.out, arguments.resume)
    questions = read_questions(arguments.questions)[: arguments.limit]
    if arguments.by == "verl":
        return _text(rollout_by_verl(questions, arguments), arguments.out)
    search = open_search(arguments.corpus)
    experience = open_experience(arguments.hek, arguments.encoder) if arguments.hek else None
    settings = EpisodeSettings(
        format=check_format(arguments.format),
        max_searches=arguments.max_searches,
        max_tokens=arguments.max_tokens,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        seed=arguments.seed,
        top_k=arguments.top_k,
        max_words_per_passage=arguments.max_words,
    )
    with open_model(arguments.model) as client:
        summary = rollout(questions, client, search, settings, arguments.k, arguments.out, arguments.resume, experience)
    return _text(summary, arguments.out)


def open_search(corpus: str) -> SearchEngine:
    """Open BM25 over a corpus file, or a client of the retrieval server at a URL, which must answer."""
    if corpus.startswith(("http://", "https://")):
        client = HttpSearch(corpus)
        client.check()
        return client
    return open_engine(SearchConfig(engine="bm25", corpus=corpus))


def open_experience(path: Path, encoder: str | None, leave_one_out: bool = True) -> Experience:
    """Load a HEK and its encoder for episodes."""
    hek = HEK.load(path)
    return Experience(Retriever(hek, open_encoder(hek, path, encoder)), leave_one_out=leave_one_out)


def _text(summary: dict[str, Any], out: Path) -> str:
    lines = [f"{name:>20}  {json.dumps(value)}" for name, value in summary.items()]
    return "\n".join([*lines, f"{'trajectories':>20}  {out / 'trajectories.jsonl'}"])
