"""Search engines: queries in, passages out. BM25 and dense search in this process, or a Search-R1 retrieval server."""

from pathlib import Path

from hiexp_verl.config import SearchConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.io.datasets import read_corpus
from hiexp_verl.models.encoder import Encoder
from hiexp_verl.search.base import Ranking, SearchEngine, SearchFailed

__all__ = ["Ranking", "SearchEngine", "SearchFailed", "open_engine"]


def open_engine(settings: SearchConfig, encoder: Encoder | None = None, cache: Path | None = None) -> SearchEngine:
    """Return the search engine of the settings; `encoder` and `cache` (of its vectors) are for `dense` only.

    Raises:
        HiExpError: a corpus, an address or an encoder is missing or malformed. An HTTP server is not contacted; see
            `HttpSearch.check`.
    """
    if settings.engine == "http":
        from hiexp_verl.search.http import HttpSearch

        if not settings.url:
            raise HiExpError("search over http has no address; set hiexp.search.url, for example http://127.0.0.1:8000/retrieve")
        return HttpSearch(settings.url, settings.timeout, settings.retries, settings.cache_size)
    if not settings.corpus:
        raise HiExpError(f"{settings.engine} search has no corpus; set hiexp.search.corpus to a JSONL file with id, title, text")
    if settings.engine == "dense":
        from hiexp_verl.search.dense import DenseSearch

        if encoder is None:
            raise HiExpError("dense search needs an encoder; set hiexp.search.encoder to a directory or a name")
        return DenseSearch(read_corpus(Path(settings.corpus)), encoder, cache)
    from hiexp_verl.search.bm25 import BM25Search

    return BM25Search(read_corpus(Path(settings.corpus)))
