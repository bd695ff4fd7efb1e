"""A diagnosis in words: what a model is told instead of two bare transcripts."""

from hiexp_verl.build.diagnose import Diagnosis, Finding, Side
from hiexp_verl.build.evidence import ANSWER

_MEANING: dict[Finding, str] = {
    "no_answer": "it ended without giving an answer",
    "answer_form": "it found the right thing but answered in another form, with more or with less than was asked",
    "never_searched": "it never searched and answered from memory",
    "two_in_one_query": "it put both things into one query instead of looking each up on its own",
    "answer_retrieved_but_missed": "a passage with the answer was on its screen, but it took something else",
    "wrong_entity": "it went on with the wrong intermediate thing",
    "entity_never_resolved": "it never found out the name of the thing that the question only describes",
    "repeated_query": "it sent the same query again and got the same passages",
    "answer_repeats_question": "it answered with a name that the question already gives",
    "misjudged": "it had looked up what was needed, and drew the wrong conclusion from it",
    "stopped_early": "it stopped searching too early",
    "dropped_condition": "its queries left out conditions of the question",
    "whole_question_query": "it pasted the whole question into the search",
    "answer_never_retrieved": "none of its searches brought a passage with the answer",
}
_MOST_CHARS = 160  # per query or quote


def describe(d: Diagnosis, max_tokens: int = 400, quotes: bool = False) -> str:
    """Return the diagnosis as some lines of text, without the gold answer, in about `max_tokens` tokens (4 characters each).

    What was retrieved goes first when room is short, then the middle searches; what was asked and answered, and what went
    wrong, always stay. `quotes` adds what the passages said: small models retell it instead of advising (benchmarks/LOG.md).
    """
    versions = ("\n".join(_lines(d, quoted, queries)) for quoted, queries in ((quotes, 6), (False, 6), (False, 3), (False, 2)))
    return next((text for text in versions if len(text) <= 4 * max_tokens), "\n".join(_lines(d, False, 1)))


def _lines(d: Diagnosis, quotes: bool, queries: int) -> list[str]:
    answered = d.failed.prediction[:_MOST_CHARS] or "nothing"
    lines = [f"The failed attempt made {_queries(d.failed, queries)}. It answered: {answered} (wrong)."]
    if d.succeeded is not None:
        lines.append(f"The successful attempt made {_queries(d.succeeded, queries)}. It answered correctly.")
        if d.part_at:
            lines.append(f"The first {d.part_at} searches were alike.")
    if quotes:
        lines += [f"{_WHO[side]} a passage with the answer: {quote[:_MOST_CHARS]}" for side, quote in _read(d)]
    lines.append(f"What went wrong: {_MEANING[d.finding]}.")
    if d.also:
        lines.append("Also: " + "; ".join(_MEANING[finding] for finding in d.also[:2]) + ".")
    if d.bridge_kind:
        lines.append(f"The thing to be found first is a {d.bridge_kind}.")
    return lines


_WHO = {True: "The failed attempt had read", False: "The successful attempt found"}


def _read(d: Diagnosis) -> list[tuple[bool, str]]:
    """Return (whether it was the failure, quote) of the passages that held the answer."""
    return [(e.trajectory == d.failed.trajectory_id, e.quote) for e in d.evidence if e.what == ANSWER]


def _queries(side: Side, most: int) -> str:
    """Number the queries; of more than `most`, the first ones and the last."""
    if not side.queries:
        return "no search"
    numbered = [f"{number}) {query[:_MOST_CHARS]}" for number, query in enumerate(side.queries, start=1)]
    shown = numbered if len(numbered) <= most else [*numbered[: most - 1], *(["..."] if most > 1 else []), numbered[-1]]
    return f"{len(side.queries)} search{'es' if len(side.queries) > 1 else ''}: {'; '.join(shown)}"
