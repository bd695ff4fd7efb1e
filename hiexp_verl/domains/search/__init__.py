"""The search domain: questions answered by searching a collection, in a few words."""

from pathlib import Path

from hiexp_verl import protocol
from hiexp_verl.config import SearchConfig
from hiexp_verl.domains.domain import Domain, Tool, ToolFailed, Use, texts_in
from hiexp_verl.domains.search.diagnose import MEANINGS, diagnose
from hiexp_verl.domains.search.plan import plan_in, plan_of
from hiexp_verl.io.files import sha256_of
from hiexp_verl.models.encoder import Encoder
from hiexp_verl.search import SearchEngine, open_engine, search_each


def _answer(use: Use) -> str:
    read = use.reading
    (found,) = search_each(use.engine, [use.call], read.top_k)
    if isinstance(found, ToolFailed):
        raise found
    return protocol.render_documents([passage for passage, _ in found], use.format, read.max_words_per_passage, read.max_chars)


def _open(search: SearchConfig, encoder: Encoder | None) -> tuple[SearchEngine, str]:
    """Return the engine, and the address or the hash of the file that it searches, with that of a dense encoder."""
    from hiexp_verl.search.http import HttpSearch  # its libraries take a while, and few runs ask a server

    engine = open_engine(search, encoder)
    if isinstance(engine, HttpSearch):
        engine.check("--search-url")
    corpus = sha256_of(Path(search.corpus)) if search.corpus is not None else str(search.url)
    return engine, corpus if encoder is None else f"{corpus} by {encoder.identity.sha256}"


SEARCH = Domain(
    name="search",
    system_prompt=protocol.system_prompt,
    actions=protocol.queries_in,
    action=("search", "searches"),
    tool=Tool(
        tags=protocol.call_tags,
        call_in=protocol.find_search,
        write_call=protocol.write_call,
        answer=_answer,
        failed=protocol.search_failed_message,
        open=_open,
        found_nothing=protocol.found_nothing,
    ),
    diagnose=diagnose,
    plan_of=plan_of,
    plan_in=plan_in,
    meanings=MEANINGS,
    texts=texts_in(Path(__file__).parents[2] / "prompts"),
)
