"""`hiexp import` and `hiexp serve-search`."""

import argparse
from pathlib import Path
from typing import Any

from hiexp_verl.cli.options import JSON_HELP, add_verb, print_result
from hiexp_verl.config import SearchConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.importers import FORMATS, FromR1Searcher, Tags
from hiexp_verl.importers.stream import import_trajectories
from hiexp_verl.models.encoder import load_encoder
from hiexp_verl.search import open_engine
from hiexp_verl.search.server import listen, serve

_IMPORT = """\
formats (one JSON object a line, .gz or plain):
  hiexp        trajectories of `hiexp rollout`, or of training with hiexp.dump_dir: checked and rewritten
  verl-dump    what verl writes to trainer.rollout_data_dir or trainer.validation_data_dir; chat templates like ChatML
               (validation episodes of our trainer are marked, and hiexp build leaves them out)
  openai       {"messages": [...], "answer": "Paris"}; optional: question, question_id, id, score, correct, model
  r1-searcher  {"question": ..., "answer": ..., "text": "the transcript"}; optional: dataset, model, prediction, correct.
               The tags of the transcript can be set, each as an opening and a closing tag

Answers that are not marked as correct or wrong are scored. Rejected, logged with their line and counted: lines that cannot be
read, duplicates, ids of an earlier trajectory, and all copies of a trajectory with contradictory labels. Trajectories without
a search are counted. If no transcript has the tag of a search or an answer, the import is refused: set the tags.

example: hiexp import runs/*.jsonl.gz --format r1-searcher --out trajectories.jsonl
         hiexp import mine.jsonl --format r1-searcher --query-tags "<search>" "</search>" \\
             --documents-tags "<result>" "</result>" --out trajectories.jsonl
then:    hiexp build --trajectories trajectories.jsonl ..."""


_SERVE = """\
example: hiexp serve-search --corpus corpus.jsonl.gz --port 8000
         then train with hiexp.search.engine=http hiexp.search.url=http://HOST:8000/retrieve"""


def add(verbs: Any) -> None:
    """Add the verbs."""
    parser = add_verb(verbs, "import", run_import, "Import trajectories of other programs.", _IMPORT)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="what the other program wrote")
    parser.add_argument("--format", required=True, choices=tuple(FORMATS), help="which program wrote it, see below")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="replaced at the end, or unchanged on an error")
    for name, default in vars(Tags()).items():
        parser.add_argument(f"--{name}-tags", nargs=2, metavar=("OPEN", "CLOSE"), help=f"default {' '.join(default)}")
    parser.add_argument("--strict", action="store_true", help="write nothing if a line is rejected")
    parser.add_argument("--json", action="store_true", help=JSON_HELP)

    parser = add_verb(verbs, "serve-search", run_serve_search, "Serve a corpus over the Search-R1 retrieval wire format.", _SERVE)
    parser.add_argument("--corpus", required=True, help="JSONL (.gz) with id, title, text")
    parser.add_argument("--encoder", help="dense search with this encoder; without it, BM25")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine alone)")
    parser.add_argument("--port", type=int, default=8000, help="(default 8000)")


def run_import(arguments: argparse.Namespace) -> int:
    """Convert and print the counts."""
    tags = {name: tuple(pair) for name in vars(Tags()) if (pair := getattr(arguments, f"{name}_tags"))}
    if tags and arguments.format != "r1-searcher":
        raise HiExpError(f"tags can be set for --format r1-searcher only, found --format {arguments.format}; leave them out")
    convert = FromR1Searcher(Tags(**tags)) if tags else FORMATS[arguments.format]()
    report = import_trajectories(arguments.files, arguments.out, convert, arguments.strict)
    print_result(arguments.json, {**vars(report), "rejected": report.rejected}, report.summary())
    return 0


def run_serve_search(arguments: argparse.Namespace) -> int:
    """Serve until interrupted."""
    encoder = load_encoder(arguments.encoder) if arguments.encoder else None
    engine = open_engine(SearchConfig(engine="dense" if encoder else "bm25", corpus=arguments.corpus), encoder)
    listener = listen(arguments.host, arguments.port)
    print(f"serving {arguments.corpus} on http://{arguments.host}:{listener.getsockname()[1]}/retrieve (Ctrl-C stops)", flush=True)
    serve(engine, listener)
    return 0
