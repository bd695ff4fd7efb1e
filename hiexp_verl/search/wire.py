"""The JSON of a Search-R1 retrieval server.

Request: ``{"queries": [...], "topk": k, "return_scores": true}``.
Reply: ``{"result": [[{"document": {"contents": "\\"Title\\"\\ntext"}, "score": x}, ...], ...]}``, one list per query. A document may
instead have "title" and "text"; without scores the server sends the document itself.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from hiexp_verl.search.base import Ranking
from hiexp_verl.types import Passage


def write_request(queries: Sequence[str], top_k: int) -> dict[str, Any]:
    """Return the body of a request."""
    return {"queries": list(queries), "topk": top_k, "return_scores": True}


def write_reply(rankings: Sequence[Ranking]) -> dict[str, Any]:
    """Return the body of a reply; documents carry both notations, so that every client finds its own."""
    return {"result": [[{"document": _document(passage), "score": score} for passage, score in ranking] for ranking in rankings]}


def read_reply(body: object, queries: int, top_k: int) -> list[Ranking]:
    """Return the rankings of a reply.

    Raises:
        ValueError: it is not such a reply, or has not one list per query.
    """
    result = body.get("result") if isinstance(body, dict) else None
    if not isinstance(result, list) or len(result) != queries or not all(isinstance(items, list) for items in result):
        raise ValueError(f"expected 'result' with {queries} lists")
    return [[_read_item(item) for item in items[:top_k]] for items in result]


def _document(passage: Passage) -> dict[str, str]:
    contents = f'"{passage.title}"\n{passage.text}'
    return {"id": passage.id, "contents": contents, "title": passage.title, "text": passage.text}


def _read_item(item: object) -> tuple[Passage, float]:
    if not isinstance(item, dict):
        raise ValueError(f"expected a document, found {type(item).__name__}")
    document, score = item.get("document", item), item.get("score", 0.0)
    if not isinstance(document, dict) or isinstance(score, bool) or not isinstance(score, int | float):
        raise ValueError("expected {'document': {...}, 'score': number}")
    if isinstance(document.get("text"), str):
        title, text = str(document.get("title") or ""), document["text"]
    elif isinstance(document.get("contents"), str):
        title, _, text = document["contents"].partition("\n")
        title = title.strip().strip('"')
    else:
        raise ValueError("a document has neither 'text' nor 'contents'")
    identifier = document.get("id")
    digest = hashlib.sha256(f"{title}\n{text}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return Passage(str(identifier) if identifier is not None else digest, title, text), float(score)
