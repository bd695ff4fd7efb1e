"""A small HEK with transcripts behind it, as the views show it."""

from dataclasses import replace

from hiexp_verl.hek import HEK, Header
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.protocol import searches
from hiexp_verl.types import Evidence, Source
from tests.support.episodes import episode, two_hops
from tests.support.factories import entry

ENCODER = HashEncoder(16)


SUCCESS = two_hops(number=0)


FAILURE = episode(("Noshak highest point country", "peak"), answer="Paris", number=1)


# Messages: system, user, call, documents, ...; the documents are "<information>\nDoc 1(...) Noshak is a mountain in Afghanistan. ..."
START = FAILURE.messages[3]["content"].index("Afghanistan")
EVIDENCE = Evidence("q1#1", 3, START, START + len("Afghanistan"), "the answer was here", "a mountain in X")


def source(trajectory, **changes):
    queries = tuple(search.query for search in searches(trajectory.messages))
    t = trajectory
    return replace(Source(t.id, t.question_id, t.question, t.model, t.prediction, t.correct, queries), **changes)


def hek(**changes):
    fields = {"sources": ("q1#0", "q1#1"), "questions": ("q1",), "evidence": (EVIDENCE,), "counters": {"merged": 3}}
    cases = (entry("e1-a", bridges=("peak",), **(fields | changes)), entry("e1-b"))
    entries = (*cases, entry("e2-a", "e2", title="a pattern", children=("e1-a", "e1-b")))

    vectors_E_D = ENCODER.encode_passages([e.title for e in entries])
    return HEK(Header(ENCODER.identity), entries, vectors_E_D, (source(SUCCESS), source(FAILURE)))
