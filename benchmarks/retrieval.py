"""What concurrent retrieval costs beside its two bare parts, the encoder and one matrix product, and what it saves.

    python -m benchmarks.retrieval [--size smoke|bench|long] [--encoder DIR]

Look-ups: 256 callers ask `LocalRetrieval.experience` for distinct texts, each the next when it has its answer: a question, at the
start, and 15 queries of its episodes. Each question is compared with the 300 factbook questions that the HEK comes from. Beside it one
call of the encoder for each query, as an agent's tool would do by itself, and as a yardstick the encoder alone in batches of 64.
Top-k: `Retriever.retrieve` for a batch of 64 queries, every query with its own entries hidden. Beside it
sentence-transformers' `semantic_search`, which hides nothing, and as a yardstick the product of the two matrices. All ways take
turns within one run; medians. Growth: over the callers or the size of the batch, and over the entries.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _machine
from benchmarks._results import Claim, Panel, Result, command_line, figure, folder_of, publish, table
from hiexp_verl.config import HiExpConfig, Place, SearchConfig
from hiexp_verl.guide.lookup import ExperienceRequest
from hiexp_verl.hek import HEK, Header, Retriever
from hiexp_verl.io.datasets import read_questions
from hiexp_verl.io.files import cache_dir
from hiexp_verl.models.encoder import Encoder, EncoderIdentity, load_encoder
from hiexp_verl.plugin.retrieval import LocalRetrieval
from hiexp_verl.types import Entry, Question, Source
from recipes.demo_data.factbook.sets import write_factbook

BATCH, TOP_K, DIMENSIONS = 64, 5, 384
LEARNT_FROM, WARM_UP, LOOKUPS = 300, 400, 16  # questions of the HEK, those that meet all of them first; look-ups of a question
OURS, BATCHED, SINGLE = "ours", "encoder alone, batches", "one call of the encoder a query"
PRODUCT, SEARCH = "matrix product alone", "semantic_search"
_NOUNS = ("capital", "river", "composer", "battle", "novel", "bridge", "film", "queen", "museum", "island", "engine", "planet")
_VERBS = ("crosses", "was written in", "borders", "is named after", "was founded by", "won against", "flows through", "succeeded")

Ways = dict[str, Callable[[], Any]]
Measured = dict[str, list[float]]


@dataclass(frozen=True)
class Size:
    rounds: int
    queries: int  # of a round, each way; one at a time is so slow that it gets an eighth
    callers: tuple[int, ...]
    entries: tuple[int, ...]
    claimed: tuple[int, int] = (256, 32_000)  # callers, entries
    titles: int = 2_000  # entries of the HEK that is looked up in


SIZES = {
    "smoke": Size(1, 8, (2, 4), (64, 128), (4, 128), titles=100),
    "bench": Size(3, 512, (1, 4, 16, 64, 256), (1_000, 4_000, 32_000, 128_000)),
    "long": Size(7, 2_048, (1, 4, 16, 64, 256, 1_024), (1_000, 4_000, 32_000, 128_000, 512_000)),
}


def main() -> None:
    """Measure, print, write."""
    parser = command_line(__doc__)
    parser.add_argument("--encoder", default=str(cache_dir() / "minilm"))
    arguments = parser.parse_args()
    machine, size = _machine.facts(), SIZES[arguments.size]
    found = lookups(arguments.encoder, size)
    ranked = {entries: top_k(entries, 10 * size.rounds) for entries in size.entries}
    publish("retrieval", machine, result_of(found, ranked, size), folder_of(arguments))


def queries(count: int, seed: int = 0) -> list[str]:
    """Return that many distinct texts of the length of search queries."""
    draw = np.random.default_rng(seed)

    def words(number: int) -> str:
        return f"{draw.choice(_NOUNS)} {number} that {draw.choice(_VERBS)} the {draw.choice(_NOUNS)} of {draw.choice(_NOUNS)}"

    return [f"which {words(seed * count + number)}" for number in range(count)]


def lookups(encoder_spec: str, size: Size) -> dict[int, Measured]:
    """Return queries a second of every way, one of each a round, by callers or size of the batch."""
    encoder = load_encoder(encoder_spec)
    with tempfile.TemporaryDirectory() as folder:
        settings, questions = write_inputs(Path(folder), encoder, encoder_spec, size.titles)
        retrieval = LocalRetrieval(settings)
        encoder.encode_queries(queries(BATCH, seed=10_000))
        # A known question is encoded when one first comes near it, once in a run.
        asyncio.run(all_callers(retrieval, [request("prompt", q.question, q) for q in questions[:WARM_UP]], BATCH))
        played = cycle(questions[WARM_UP:])
        found: dict[int, Measured] = {}
        for callers in size.callers:
            rounds = []
            for number in range(size.rounds):
                count = size.queries // (8 if callers < 4 else 1)
                requests = requests_of(played, queries(count, seed=1_000 * callers + number))  # new ones: those of before are remembered
                asked = [each.text for each in requests]
                ways: Ways = {
                    BATCHED: lambda asked=asked, n=callers: one_batch_after_another(encoder, asked, min(n, BATCH)),
                    OURS: lambda requests=requests, n=callers: asyncio.run(all_callers(retrieval, requests, n)),
                }
                if callers == size.claimed[0]:
                    ways[SINGLE] = lambda asked=asked: one_batch_after_another(encoder, asked[: len(asked) // 8], 1)
                seconds = in_turns(ways, number)
                rounds.append({way: (count // 8 if way == SINGLE else count) / seconds[way] for way in ways})
            found[callers] = {way: [each[way] for each in rounds] for way in rounds[0]}
            print(f"{callers} callers, queries a second: {medians(found[callers])}", flush=True)
    return found


def one_batch_after_another(encoder: Encoder, asked: Sequence[str], batch: int) -> None:
    for start in range(0, len(asked), batch):
        encoder.encode_queries(asked[start : start + batch])


def write_inputs(folder: Path, encoder: Encoder, encoder_spec: str, count: int) -> tuple[HiExpConfig, list[Question]]:
    """Write factbook questions and corpus, and a HEK of so many entries (a multiple of 20); return settings and new questions."""
    write_factbook(cache_dir() / "factbook", folder / "factbook")
    asked = [q for name in ("train", "val") for q in read_questions(folder / "factbook" / f"{name}.jsonl")]
    known, new = asked[:LEARNT_FROM], asked[LEARNT_FROM:]
    titles = queries(count, seed=20_000)
    levels = ["e1"] * (count * 80 // 100) + ["e2"] * (count * 15 // 100) + ["e3"] * (count * 5 // 100)
    entries = tuple(
        Entry(f"{level}-{i:05d}", level, title, f"Search for what {title} first.", questions=(known[i % LEARNT_FROM].id,))  # type: ignore[arg-type]
        for i, (level, title) in enumerate(zip(levels, titles, strict=True))
    )
    sources = tuple(Source(f"{q.id}#0", q.id, q.question, "", "", False, ()) for q in known)
    header = Header(encoder.identity, thresholds={"tool_min_score": 0.5})
    HEK(header, entries, encoder.encode_passages(titles), sources).save(folder / "hek")
    corpus = str(folder / "factbook" / "corpus.jsonl")
    return HiExpConfig(hek=str(folder / "hek"), encoder=encoder_spec, search=SearchConfig(corpus=corpus)), new


def requests_of(questions: Iterator[Question], asked: Sequence[str]) -> list[ExperienceRequest]:
    """Return as many look-ups: of every 16 the first is at the start, with the question itself."""
    found: list[ExperienceRequest] = []
    for start in range(0, len(asked), LOOKUPS):
        own = next(questions)
        found += [request("prompt", own.question, own), *(request("tool", text, own) for text in asked[start + 1 : start + LOOKUPS])]
    return found


def request(place: Place, text: str, own: Question) -> ExperienceRequest:
    return ExperienceRequest(place, text, own.id, own.question)


async def all_callers(retrieval: LocalRetrieval, requests: Sequence[ExperienceRequest], callers: int) -> None:
    """Ask everything, so many at a time."""
    left = iter(requests)

    async def caller() -> None:
        for each in left:
            await retrieval.experience(each)

    await asyncio.gather(*(caller() for _ in range(callers)))


def top_k(entry_count: int, rounds: int) -> Measured:
    """Return milliseconds of every way for a batch over so many entries."""
    from sentence_transformers.util import semantic_search

    draw = np.random.default_rng(0)
    vectors_E_D, queries_N_D = (unit(draw.normal(size=(n, DIMENSIONS))) for n in (entry_count, BATCH))
    entries = tuple(Entry(f"e1-{i:06d}", "e1", f"t{i}", "d", questions=(f"q{i // 2}",)) for i in range(entry_count))

    class Nobody:
        identity = EncoderIdentity("none", "", "", "", DIMENSIONS)

    retriever = Retriever(HEK(Header(Nobody.identity), entries, vectors_E_D), Nobody())  # type: ignore[arg-type]
    own = [f"q{i}" for i in range(BATCH)]
    ways: Ways = {
        PRODUCT: lambda: queries_N_D @ vectors_E_D.T,
        OURS: lambda: retriever.retrieve(queries_N_D, ["e1"], TOP_K, exclude_questions=own),
        SEARCH: lambda: semantic_search(queries_N_D, vectors_E_D, top_k=TOP_K),  # type: ignore[arg-type]
    }
    in_turns(ways, 0)
    taken = [in_turns(ways, number) for number in range(rounds)]
    found = {way: [1000 * each[way] for each in taken] for way in ways}
    print(f"{entry_count} entries, milliseconds: {medians(found)}", flush=True)
    return found


def unit(vectors_N_D: np.ndarray) -> np.ndarray:
    return (vectors_N_D / np.linalg.norm(vectors_N_D, axis=1, keepdims=True)).astype(np.float32)


def in_turns(ways: Ways, number: int) -> dict[str, float]:
    """Return seconds of each way; the order moves on by one from round to round."""
    names = list(ways)
    seconds = {}
    for name in names[number % len(names) :] + names[: number % len(names)]:
        started = time.perf_counter()
        ways[name]()
        seconds[name] = time.perf_counter() - started
    return seconds


def medians(found: Measured) -> dict[str, float]:
    return {way: round(statistics.median(values), 2) for way, values in found.items()}


def result_of(found: dict[int, Measured], ranked: dict[int, Measured], size: Size) -> Result:
    """Return claims where they are made, and growth."""
    callers, entries = size.claimed
    rates, times = medians(found[callers]), medians(ranked[entries])
    looked_up = f"Look-ups of {callers} callers in {size.titles:,} entries"
    best = f"Top {TOP_K} of {BATCH} queries over {entries:,} x {DIMENSIONS}, own entries hidden"
    claims = [
        Claim(looked_up, "a second", "more", rates[OURS], SINGLE, rates[SINGLE]),
        Claim(looked_up, "a second", "more", rates[OURS], f"{BATCHED} of {min(callers, BATCH)}", rates[BATCHED], 0.8),
        Claim(best, "ms", "less", times[OURS], f"sentence-transformers' {SEARCH}, nothing hidden", times[SEARCH]),
        Claim(best, "ms", "less", times[OURS], PRODUCT, times[PRODUCT], 1.5),
    ]
    panels = [
        Panel("callers, or size of the batch (at most 64)", "queries a second", lines_of(found, (OURS, BATCHED))),
        Panel("entries", f"milliseconds for {BATCH} queries", lines_of(ranked, (OURS, SEARCH, PRODUCT))),
    ]
    text = [
        *table(["callers", "ours, queries a second", BATCHED, SINGLE], rows_of(found, (OURS, BATCHED, SINGLE))),
        "",
        *table(["entries", "ours, ms", SEARCH, PRODUCT], rows_of(ranked, (OURS, SEARCH, PRODUCT))),
        "",
        f"Medians of {size.rounds} and of {10 * size.rounds} rounds; the middle half of the ratios of single rounds: "
        f"{spread(found[callers], OURS, BATCHED)} of the encoder alone, {spread(ranked[entries], OURS, PRODUCT)} of the product.",
    ]
    return Result("Retrieval against its bare parts", claims, panels, {"lookups": found, "top_k": ranked}, text)


def lines_of(found: dict[int, Measured], ways: Sequence[str]) -> dict[str, list[tuple[float, float]]]:
    return {way: [(n, medians(measured)[way]) for n, measured in found.items()] for way in ways}


def rows_of(found: dict[int, Measured], ways: Sequence[str]) -> list[list[str]]:
    return [[f"{n:,}", *(figure(medians(measured)[way]) if way in measured else "-" for way in ways)] for n, measured in found.items()]


def spread(measured: Measured, ours: str, bare: str) -> str:
    """Return the first and the last quartile of the ratios."""
    ratios = [a / b for a, b in zip(measured[ours], measured[bare], strict=True)]
    least, most = np.quantile(ratios, (0.25, 0.75))
    return f"{least:.2f} to {most:.2f}"


if __name__ == "__main__":
    main()
