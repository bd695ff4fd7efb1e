"""What concurrent retrieval costs beside its two bare parts: the encoder, and one matrix product.

    python -m benchmarks.retrieval [--quick]

Look-ups: 256 callers ask `LocalRetrieval.experience` for distinct queries, each the next when it has its answer; the yardstick
is `encoder.encode_queries` on the same queries, 64 at a time, in the same process. Top-k: `Retriever.retrieve_vectors` for a
batch of 64 queries over 32,000 x 384, every query with its own entries hidden; the yardstick is the product of the two
matrices. Both sides alternate within one run; medians, and the ratio of the medians. Writes results/retrieval.{json,md}.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _machine
from hiexp_verl.assets import default_cache
from hiexp_verl.config import HiExpConfig, SearchConfig
from hiexp_verl.encoder import Encoder, EncoderIdentity, load_encoder
from hiexp_verl.hek import HEK, Header, Retriever
from hiexp_verl.jsonl import atomic_writer
from hiexp_verl.plugin.retrieval import LocalRetrieval
from hiexp_verl.run.lookup import ExperienceRequest
from hiexp_verl.types import Entry

RESULTS = Path(__file__).parent / "results"
CALLERS, BATCH, TOP_K = 256, 64, 5
ENTRIES, TITLES, DIMENSIONS = 32_000, 2_000, 384
_NOUNS = ("capital", "river", "composer", "battle", "novel", "bridge", "film", "queen", "museum", "island", "engine", "planet")
_VERBS = ("crosses", "was written in", "borders", "is named after", "was founded by", "won against", "flows through", "succeeded")


def queries(count: int, seed: int = 0) -> list[str]:
    """Return that many distinct texts of the length of search queries."""
    draw = np.random.default_rng(seed)

    def words(number: int) -> str:
        return f"{draw.choice(_NOUNS)} {number} that {draw.choice(_VERBS)} the {draw.choice(_NOUNS)} of {draw.choice(_NOUNS)}"

    return [f"which {words(seed * count + number)}" for number in range(count)]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default=str(default_cache() / "minilm"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="three rounds of fewer queries, for a look and not for the record")
    arguments = parser.parse_args()
    machine = _machine.facts()
    rounds, count = (3, 512) if arguments.quick else (arguments.rounds, 2_048)
    found = {"lookup": lookups(arguments.encoder, rounds, count), "top_k": top_k(10 * rounds)}
    report(machine, found, write=not arguments.quick)


def lookups(encoder_spec: str, rounds: int, count: int) -> dict[str, Any]:
    """Return queries per second of the bare encoder and of the retrieval, one of each a round."""
    encoder = load_encoder(encoder_spec)
    with tempfile.TemporaryDirectory() as folder:
        settings = write_inputs(Path(folder), encoder, encoder_spec)
        retrieval = LocalRetrieval(settings)
        rates: dict[str, list[float]] = {"bare": [], "ours": []}
        encoder.encode_queries(queries(BATCH, seed=10_000))
        asyncio.run(all_callers(retrieval, queries(BATCH, seed=10_001)))
        for number in range(rounds):
            asked = queries(count, seed=number)  # new ones each round: those of before are remembered
            ways: dict[str, Callable[[], Any]] = {
                "bare": lambda asked=asked: [encoder.encode_queries(asked[i : i + BATCH]) for i in range(0, count, BATCH)],
                "ours": lambda asked=asked: asyncio.run(all_callers(retrieval, asked)),
            }
            for way in sorted(ways, reverse=bool(number % 2)):
                rates[way].append(count / seconds_of(ways[way]))
    return summary(rates, "ours", "bare")


def write_inputs(folder: Path, encoder: Encoder, encoder_spec: str) -> HiExpConfig:
    """Write a HEK of 2,000 entries and a corpus of one passage."""
    titles = queries(TITLES, seed=20_000)
    levels = ["e1"] * (TITLES * 8 // 10) + ["e2"] * (TITLES * 15 // 100) + ["e3"] * (TITLES * 5 // 100)
    entries = tuple(
        Entry(f"{level}-{i:05d}", level, title, f"Search for what {title} first.", questions=(f"q{i}",))  # type: ignore[arg-type]
        for i, (level, title) in enumerate(zip(levels, titles, strict=True))
    )
    HEK(Header(encoder.identity, thresholds={"step_min_score": 0.5}), entries, encoder.encode_passages(titles)).save(folder / "hek")
    corpus = folder / "corpus.jsonl"
    corpus.write_text('{"id": "1", "title": "a", "text": "b"}\n', encoding="utf-8")
    return HiExpConfig(hek=str(folder / "hek"), encoder=encoder_spec, search=SearchConfig(corpus=str(corpus)))


async def all_callers(retrieval: LocalRetrieval, asked: list[str]) -> None:
    """Ask everything, 256 at a time, alternately for the start and for a step."""
    left = iter(enumerate(asked))

    async def caller() -> None:
        for number, text in left:
            await retrieval.experience(ExperienceRequest("step" if number % 4 else "start", text, f"q{number % TITLES}", text))

    await asyncio.gather(*(caller() for _ in range(CALLERS)))


def top_k(rounds: int) -> dict[str, Any]:
    """Return milliseconds of the bare product and of the retrieval of a batch."""
    draw = np.random.default_rng(0)
    vectors_E_D, queries_N_D = (unit(draw.normal(size=(n, DIMENSIONS))) for n in (ENTRIES, BATCH))
    entries = tuple(Entry(f"e1-{i:05d}", "e1", f"t{i}", "d", questions=(f"q{i // 2}",)) for i in range(ENTRIES))

    class Nobody:
        identity = EncoderIdentity("none", "", "", "", DIMENSIONS)

    retriever = Retriever(HEK(Header(Nobody.identity), entries, vectors_E_D), Nobody())  # type: ignore[arg-type]
    own = [f"q{i}" for i in range(BATCH)]
    times: dict[str, list[float]] = {"bare": [], "ours": []}
    ways: dict[str, Callable[[], Any]] = {
        "bare": lambda: queries_N_D @ vectors_E_D.T,
        "ours": lambda: retriever.retrieve_vectors(queries_N_D, ["e1"], TOP_K, exclude_questions=own),
    }
    for way in ways.values():
        way()
    for number in range(rounds):
        for way in sorted(ways, reverse=bool(number % 2)):
            times[way].append(1000 * seconds_of(ways[way]))
    return summary(times, "ours", "bare")


def unit(vectors_N_D: np.ndarray) -> np.ndarray:
    return (vectors_N_D / np.linalg.norm(vectors_N_D, axis=1, keepdims=True)).astype(np.float32)


def seconds_of(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def summary(measured: dict[str, list[float]], ours: str, bare: str) -> dict[str, Any]:
    """Return medians, their ratio, and the ratios of the single rounds."""
    medians = {name: statistics.median(values) for name, values in measured.items()}
    pairs = sorted(a / b for a, b in zip(measured[ours], measured[bare], strict=True))
    return {
        "medians": {name: round(value, 2) for name, value in medians.items()},
        "ratio": round(medians[ours] / medians[bare], 3),
        "ratio_of_rounds": [round(pairs[round(share * (len(pairs) - 1))], 3) for share in (0, 0.25, 0.5, 0.75, 1)],
        "raw": {name: [round(value, 3) for value in values] for name, values in measured.items()},
    }


def report(machine: dict[str, Any], found: dict[str, Any], write: bool) -> None:
    """Print a table; write it and the raw numbers."""
    rows = [
        (f"look-ups a second, {CALLERS} callers, 2,000 entries", "encoder alone, batches of 64", found["lookup"], "at least 0.8"),
        ("milliseconds for the top 5 of 64 queries, 32,000 x 384", "matrix product", found["top_k"], "at most 1.5"),
    ]
    lines = ["# Retrieval against its bare parts", "", *_machine.as_lines(machine), ""]
    lines += ["| what | ours | yardstick | | ratio | single rounds: least, quartiles, most | wanted |"]
    lines += ["| --- | ---: | ---: | --- | ---: | --- | --- |"]
    for what, yardstick, row, wanted in rows:
        medians, spread = row["medians"], ", ".join(map(str, row["ratio_of_rounds"]))
        lines.append(f"| {what} | {medians['ours']} | {medians['bare']} | {yardstick} | {row['ratio']} | {spread} | {wanted} |")
    print("\n".join(lines))
    if write:
        with atomic_writer(RESULTS / "retrieval.json") as file:
            file.write(json.dumps({"machine": machine, **found}, indent=1) + "\n")
        with atomic_writer(RESULTS / "retrieval.md") as file:
            file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
