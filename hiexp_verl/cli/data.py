"""`hiexp import`, `hiexp import-bank` and `hiexp serve-search`."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from hiexp_verl.cli.options import DOMAIN_HELP, JSON_HELP, add_verb, print_result, say
from hiexp_verl.config import SearchConfig
from hiexp_verl.domains import domain_named
from hiexp_verl.domains.domain import UNMARKED
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.opening import remember_encoder
from hiexp_verl.hek.store import current_version
from hiexp_verl.importers import FORMATS, FromR1Searcher, Tags
from hiexp_verl.importers.bank import BANKS, import_bank
from hiexp_verl.importers.stream import import_trajectories
from hiexp_verl.models.encoder import load_encoder
from hiexp_verl.search import open_engine
from hiexp_verl.search.server import listen, serve
from hiexp_verl.text import printable
from hiexp_verl.types import LEVELS

_IMPORT = """\
formats (one JSON object a line, .gz or plain, a JSON list, or parquet):
  hiexp        trajectories of `hiexp rollout`, or of training with hiexp.dump_dir: checked and rewritten
  verl-dump    what verl writes to trainer.rollout_data_dir or trainer.validation_data_dir; chat templates ChatML, Llama 3, Gemma
               (validation episodes of our trainer are marked, and hiexp build leaves them out)
  openai       {"messages": [...], "answer": "Paris"}; optional: question, question_id, id, score, correct, model
  r1-searcher  {"question": ..., "answer": ..., "text": "the transcript"}; optional: dataset, model, prediction, correct; also with
               the names that R1-Searcher publishes (gen_text_store, pred_ans, gpt4o_output). The tags may be those of
               R1-Searcher, Search-R1 or ReSearch, or set, each as an opening and a closing tag

A search call may be written as tags, as tool_calls, function_call, tool_use or functionCall, in the notation of Hermes, Qwen, Llama,
Mistral, GLM, DeepSeek, Kimi, MiniMax, gpt-oss, Granite, Phi, Command or InternLM, as fenced JSON, as Python or as ReAct; its result may be
carried by a tool, function, ipython, search, environment or user turn, or stand in the assistant's text.
What most of a file lacks (searches, answers, what searches found) is warned of.
Answers that are not marked as correct or wrong are scored. Rejected, logged with their line and counted: lines that cannot be
read, duplicates, ids of an earlier trajectory, and all copies of a trajectory with contradictory labels. If no
transcript has the tag of a search or an answer, the import is refused: set the tags.

example: hiexp import runs/*.jsonl.gz --format r1-searcher --out trajectories.jsonl
         hiexp import mine.jsonl --format r1-searcher --query-tags "<search>" "</search>" \\
             --documents-tags "<result>" "</result>" --out trajectories.jsonl
then:    hiexp build --trajectories trajectories.jsonl ..."""


_BANK = """\
formats:
  evolver        EvolveR: one principle a line, with usage_count and success_count
  reme           ReMe: one memory a line, with when_to_use and content
  youtu          youtu-agent: one JSON object, {"G0": "[When]. Advice", ...}
  reasoningbank  ReasoningBank: one task a line, with memory_items

Each item becomes an entry without children: it has no trajectories, so leave-one-out and diagnoses do not apply to it. Counters of
successes and failures are kept. What is longer than an entry may be is cut at a sentence, and counted.

example: hiexp import-bank principles.jsonl --format evolver --encoder ENCODER --out hek
then:    hiexp inspect hek"""

_SERVE = """\
example: hiexp serve-search --corpus corpus.jsonl.gz --port 8000
         then train with hiexp.search.engine=http hiexp.search.url=http://HOST:8000/retrieve"""


def add(verbs: Any) -> None:
    """Add the verbs."""
    parser = add_verb(verbs, "import", run_import, "Import trajectories of other programs.", _IMPORT)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="what the other program wrote")
    parser.add_argument("--format", required=True, choices=tuple(FORMATS), help="which program wrote it, see below")
    parser.add_argument("--domain", default=UNMARKED, help=f"of openai and verl-dump: {DOMAIN_HELP} (default search)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="replaced at the end, or unchanged on an error")
    for name, default in vars(Tags()).items():
        parser.add_argument(f"--{name}-tags", nargs=2, metavar=("OPEN", "CLOSE"), help=f"default {' '.join(default)}")
    parser.add_argument("--strict", action="store_true", help="write nothing if a line is rejected")
    parser.add_argument("--json", action="store_true", help=JSON_HELP)

    parser = add_verb(verbs, "import-bank", run_import_bank, "Make a HEK of the experience bank of another program.", _BANK)
    parser.add_argument("file", type=Path, metavar="FILE", help="the bank")
    parser.add_argument("--format", required=True, choices=tuple(BANKS), help="which program wrote it, see below")
    parser.add_argument("--encoder", required=True, help="sentence-transformers directory or name; it encodes the titles")
    parser.add_argument(
        "--level", default="e2", choices=LEVELS, help="of all entries (default e2: shown in the prompt; e1: with documents)"
    )
    parser.add_argument("--domain", default=UNMARKED, help=f"of the advice: {DOMAIN_HELP} (default search)")
    parser.add_argument("--out", type=Path, required=True, metavar="HEK", help="directory; the entries become its next version")

    parser = add_verb(verbs, "serve-search", run_serve_search, "Serve a corpus over the Search-R1 retrieval wire format.", _SERVE)
    parser.add_argument("--corpus", required=True, help="JSONL (.gz), TSV or parquet with id, title, text")
    parser.add_argument("--encoder", help="dense search with this encoder; without it, BM25")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine alone)")
    parser.add_argument("--port", type=int, default=8000, help="(default 8000)")


def run_import(arguments: argparse.Namespace) -> int:
    """Convert and print the counts."""
    tags = {name: tuple(pair) for name in vars(Tags()) if (pair := getattr(arguments, f"{name}_tags"))}
    if tags and arguments.format != "r1-searcher":
        raise HiExpError(f"tags can be set for --format r1-searcher only, found --format {arguments.format}; leave them out")
    convert = FromR1Searcher(Tags(**tags)) if tags else FORMATS[arguments.format]()
    if arguments.domain != UNMARKED:
        if arguments.format not in ("openai", "verl-dump"):
            raise HiExpError(
                f"--domain is for --format openai and verl-dump, found {arguments.format}, whose rows are of one; leave it out"
            )
        convert = partial(convert, domain=domain_named(arguments.domain))
    report = import_trajectories(arguments.files, arguments.out, convert, arguments.strict)
    print_result(arguments.json, {**vars(report), "rejected": report.rejected}, report.summary())
    return 0


def run_import_bank(arguments: argparse.Namespace) -> int:
    """Save the bank as a HEK and print the counts."""
    since = current_version(arguments.out)
    domain = domain_named(arguments.domain).name
    hek, counts = import_bank(arguments.file, arguments.format, load_encoder(arguments.encoder), arguments.level, domain)
    version = hek.save(arguments.out, since)
    remember_encoder(arguments.out, arguments.encoder)
    lines = [f"{count:6d} {name}" for name, count in counts.items() if count]
    say("\n".join([*lines, f"{len(hek.entries)} {arguments.level.upper()} in {version}"]))
    return 0


def run_serve_search(arguments: argparse.Namespace) -> int:
    """Serve until interrupted."""
    encoder = load_encoder(arguments.encoder) if arguments.encoder else None
    engine = open_engine(SearchConfig(engine="dense" if encoder else "bm25", corpus=arguments.corpus), encoder)
    listener = listen(arguments.host, arguments.port)
    print(
        f"serving {printable(arguments.corpus)} on http://{arguments.host}:{listener.getsockname()[1]}/retrieve (Ctrl-C stops)", flush=True
    )
    serve(engine, listener)
    return 0
