"""A diagnosis in words: what a model is told instead of two bare transcripts."""

from hiexp_verl.build.diagnose import Diagnosis, Finding, Side

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
    "stopped_early": "it stopped searching too early",
    "dropped_condition": "its queries left out conditions of the question",
    "whole_question_query": "it pasted the whole question into the search",
    "answer_never_retrieved": "none of its searches brought a passage with the answer",
}
_MOST_QUERIES = 6
_MOST_CHARS = 160  # per query


def describe(d: Diagnosis) -> str:
    """Return the diagnosis as some lines of text, without the gold answer."""
    lines = [f"The failed attempt made {_queries(d.failed)}. It answered: {d.failed.prediction[:_MOST_CHARS] or 'nothing'} (wrong)."]
    if d.succeeded is not None:
        lines.append(f"The successful attempt made {_queries(d.succeeded)}. It answered correctly.")
        if d.part_at:
            lines.append(f"The first {d.part_at} searches were alike.")
    lines.append(f"What went wrong: {_MEANING[d.finding]}.")
    if d.also:
        lines.append("Also: " + "; ".join(_MEANING[finding] for finding in d.also[:2]) + ".")
    if d.bridge_kind:
        lines.append(f"The thing to be found first is a {d.bridge_kind}.")
    return "\n".join(lines)


def _queries(side: Side) -> str:
    if not side.queries:
        return "no search"
    shown = "; ".join(f"{number}) {query[:_MOST_CHARS]}" for number, query in enumerate(side.queries[:_MOST_QUERIES], start=1))
    return f"{len(side.queries)} search{'es' if len(side.queries) > 1 else ''}: {shown}"
