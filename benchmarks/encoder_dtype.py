"""What bfloat16 does to the encoder of look-ups: its rate, and whether the same entries are nearest.

    python -m benchmarks.encoder_dtype [--size smoke|bench|long]

MiniLM on questions about countries, by float32 and bfloat16 in turn, on all cores of this machine. Nearest: among the same
questions by float32, which is how a HEK keeps its titles. A CPU without bfloat16 (avx512_bf16 or amx_bf16) emulates it:
`hiexp.encoder.dtype=auto` takes float32 there.
"""

import random
import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import _machine
from benchmarks._results import Claim, Panel, Result, command_line, figure, folder_of, publish, table
from hiexp_verl.models.encoder import Encoder, Vectors, has_bfloat16, load_encoder
from recipes.demo_data import assets
from recipes.demo_data.factbook.countries import read_countries
from recipes.demo_data.factbook.questions import questions_of


@dataclass(frozen=True)
class Size:
    questions: int
    rounds: int


SIZES = {"smoke": Size(50, 1), "bench": Size(1_000, 3), "long": Size(4_000, 5)}
DTYPES = ("float32", "bfloat16")


def main() -> None:
    """Measure, print, write."""
    arguments = command_line(__doc__).parse_args()
    machine, size = _machine.facts(), SIZES[arguments.size]
    folder = str(assets.fetch("minilm"))
    texts = questions(size.questions)
    encoders: dict[str, Encoder] = {dtype: load_encoder(folder, dtype=dtype) for dtype in DTYPES}
    rows: list[dict[str, Any]] = []
    vectors: dict[str, Vectors] = {}
    for number in range(size.rounds):
        for dtype in DTYPES if number % 2 == 0 else DTYPES[::-1]:
            encoders[dtype].encode_queries(texts[:64])
            started = time.perf_counter()
            vectors[dtype] = encoders[dtype].encode_queries(texts)
            rows.append({"round": number, "dtype": dtype, "texts_per_s": len(texts) / (time.perf_counter() - started)})
            print(rows[-1], flush=True)
    publish("encoder_dtype", machine, result_of(rows, vectors), folder_of(arguments))


def questions(count: int) -> list[str]:
    """Return different questions about countries, by a fixed draw."""
    asked = [question.question for question in questions_of(read_countries(assets.fetch("factbook")))]
    return random.Random(0).sample(asked, min(count, len(asked)))


def result_of(rows: list[dict[str, Any]], vectors: dict[str, Vectors]) -> Result:
    """Return the rates, and how near the vectors of both are."""
    rates = {dtype: statistics.median(row["texts_per_s"] for row in rows if row["dtype"] == dtype) for dtype in DTYPES}
    exact_N_D, fast_N_D = (vectors[dtype] for dtype in DTYPES)
    among_exact_N_N, among_fast_N_N = exact_N_D @ exact_N_D.T, fast_N_D @ exact_N_D.T
    for cosines_N_N in (among_exact_N_N, among_fast_N_N):
        np.fill_diagonal(cosines_N_N, -1.0)  # a question is not its own neighbour
    same = float(np.mean(among_exact_N_N.argmax(axis=1) == among_fast_N_N.argmax(axis=1)))
    least = float((exact_N_D * fast_N_D).sum(axis=1).min())
    claims = [
        Claim("Texts a second by MiniLM in bfloat16", "texts a second", "more", rates["bfloat16"], "float32", rates["float32"]),
        Claim("Questions whose nearest neighbour stays in bfloat16", "share", "more", same, "float32", 1.0, wanted=0.99),
    ]
    made = [[dtype, figure(rates[dtype])] for dtype in DTYPES]
    note = (
        f"{len(exact_N_D)} questions; least cosine between both vectors of a question {least:.5f}; bfloat16 in hardware: {has_bfloat16()}."
    )
    lines = {
        dtype: [(number + 1.0, row["texts_per_s"]) for number, row in enumerate(r for r in rows if r["dtype"] == dtype)] for dtype in DTYPES
    }
    panels = [Panel("round", "texts a second", lines)]
    return Result(
        "The encoder of look-ups in bfloat16",
        claims,
        panels,
        {"rows": rows, "least_cosine": least},
        [note, "", *table(["dtype", "texts/s"], made)],
    )


if __name__ == "__main__":
    main()
