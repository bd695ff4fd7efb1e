"""Does the start find the experience that fits? By the whole question, as in the paper, and by the way to its answer.

    python -m benchmarks.effect_rl ...                   # leaves the HEK and the questions
    python -m benchmarks.effect_lookup --out outputs/effect_rl

A question's family says how one gets to its answer and what is asked there ("capital > only neighbour > currency"); its way is the
family without the last word. A pattern is of the way that most of the questions it was distilled from have. Counted over questions
about countries that no training question names, of ways that the HEK has a pattern of: is one of that way among the first k?
Seconds on 2 cores. Writes results/effect_lookup.{json,md}.
"""

import argparse
import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import _machine
from benchmarks._results import RESULTS, table
from hiexp_verl.config import PromptConfig, ToolConfig
from hiexp_verl.guide.lookup import ExperienceRequest, Lookup
from hiexp_verl.hek.opening import open_encoder
from hiexp_verl.hek.retrieve import Retriever
from hiexp_verl.hek.store import HEK
from hiexp_verl.io.datasets import read_questions
from hiexp_verl.io.files import atomic_writer
from hiexp_verl.types import Hit, Question

TOP = (1, 3, 5)
ALL = "all"


def main() -> None:
    """Look every question up by both, count, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/effect_rl"), help="folder of benchmarks.effect_rl")
    arguments = parser.parse_args()
    machine, data = _machine.facts(), arguments.out / "data"
    hek = HEK.load(arguments.out / "hek")
    retriever = Retriever(hek, open_encoder(hek, arguments.out / "hek", None))
    way_of_source = {q.id: way(q) for q in read_questions(data / "learn.jsonl")}
    ways = {e.id: Counter(way_of_source[q] for q in e.questions).most_common(1)[0][0] for e in hek.entries if e.level == "e2"}
    asked = [q for part in ("val", "test") for q in read_questions(data / f"{part}.jsonl") if way(q) in ways.values()]
    counts = {match: count(asked, asyncio.run(look_up(retriever, asked, match)), ways) for match in ("question", "way")}
    with atomic_writer(RESULTS / "effect_lookup.json") as file:
        file.write(json.dumps({"machine": machine, "hek": hek.content_hash(), "counts": counts}, indent=1) + "\n")
    rows = [
        [kind, str(of[ALL]), *(f"{counts[match][kind][str(k)] / of[ALL]:.2f}" for match in counts for k in TOP)]
        for kind, of in counts["way"].items()
    ]
    heads = ["way", "questions", *(f"by the {match}, first {k}" for match in counts for k in TOP)]
    lines = ["# Does the start find the experience that fits?", "", *_machine.as_lines(machine), "", *table(heads, rows, numbers=set()), ""]
    lines += [f"Share of questions that find a pattern of their way among the first, of {len(ways)}."]
    with atomic_writer(RESULTS / "effect_lookup.md") as file:
        file.write("\n".join([*lines, ""]))


def way(question: Question) -> str:
    """Return the family without what is asked for at its end."""
    return question.meta["family"].rpartition(" > ")[0]


async def look_up(retriever: Retriever, questions: Sequence[Question], match: str) -> list[list[Hit]]:
    """Return what each question would be shown at its start, were there room for all."""
    lookup = Lookup(retriever, PromptConfig(top_k=max(TOP), match=match), ToolConfig())
    return await asyncio.gather(*(lookup(ExperienceRequest("prompt", q.question)) for q in questions))


def count(questions: Sequence[Question], hits: Sequence[Sequence[Hit]], ways: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Return by way, and of all, how many questions there are and how many find their way among the first k."""
    counts: dict[str, Counter[str]] = {}
    for question, found in zip(questions, hits, strict=True):
        right = [ways.get(hit.entry.id) == way(question) for hit in found]
        for kind in (ALL, way(question)):
            counts.setdefault(kind, Counter()).update({ALL: 1} | {str(k): int(any(right[:k])) for k in TOP})
    return {kind: dict(of) for kind, of in sorted(counts.items())}


if __name__ == "__main__":
    main()
