"""`hiexp serve-search`."""

import argparse
from typing import Any

from hiexp_verl.cli.common import add_verb


def add_serve_search(verbs: Any) -> None:
    """Add the verb."""
    epilog = "example: hiexp serve-search --corpus corpus.jsonl.gz --port 8000\n         then train with hiexp.search.engine=http hiexp.search.url=http://HOST:8000/retrieve"
    parser = add_verb(verbs, "serve-search", run_serve_search, "Serve a corpus over the Search-R1 retrieval wire format.", epilog)
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
