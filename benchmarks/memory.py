"""How much memory a HEK takes, and how much a build: the peak of a process of its own, which imports, reads, and does its work.

    python -m benchmarks.memory [--size smoke|bench|long]

Use: `HEK.load` with all its checks and the top 5 of 64 queries, over N made-up entries x 384 with two sources each. Beside it
what one would write in an afternoon: the same entries as JSON lines with their vectors in them, searched with scikit-learn's
NearestNeighbors. `vectors` is what the vectors take by themselves. Build: `build` with the distiller `rules` from two
trajectories of each of N questions; that nobody else does, so it has its growth and no comparison.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _machine
from benchmarks._results import Claim, Panel, Result, command_line, figure, folder_of, publish, table
from hiexp_verl.models.encoder import EncoderIdentity

OURS, THEIRS, BUILD = "HEK", "JSON lines and scikit-learn", "build"
DIMENSIONS, QUERIES, TOP_K = 384, 64, 5


@dataclass(frozen=True)
class Size:
    entries: tuple[int, ...]
    questions: tuple[int, ...]


SIZES = {
    "smoke": Size((100,), (20,)),
    "bench": Size((2_000, 8_000, 32_000), (500, 1_000, 2_000, 4_000)),
    "long": Size((2_000, 8_000, 32_000, 128_000), (500, 1_000, 2_000, 4_000, 8_000, 16_000)),
}


def main() -> None:
    """Run all sizes, write the results."""
    parser = command_line(__doc__)
    parser.add_argument("--measure", nargs=2, metavar=("WHO", "WHAT"), help="one measurement, for this program itself")
    arguments = parser.parse_args()
    if arguments.measure:
        who, what = arguments.measure
        measure(who, what)
        return
    machine, size = _machine.facts(), SIZES[arguments.size]
    uses, builds = [use(entries) for entries in size.entries], [build_of(questions) for questions in size.questions]
    publish("memory", machine, result_of(uses, builds), folder_of(arguments))


def use(entries: int) -> dict[str, Any]:
    """Write a HEK and the same as JSON lines; return what a process that answers from each takes."""
    with tempfile.TemporaryDirectory() as name:
        write_made_up(Path(name), entries)
        row = {"entries": entries, "vectors": entries * DIMENSIONS * 4 / 2**30}
        row |= {who: _in_a_process(who, name) for who in (OURS, THEIRS)}
    print(json.dumps(row), flush=True)
    return row


def build_of(questions: int) -> dict[str, Any]:
    """Return what a process that builds from so many questions takes."""
    row = {"questions": questions, BUILD: _in_a_process(BUILD, str(questions))}
    print(json.dumps(row), flush=True)
    return row


def _in_a_process(who: str, what: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.memory", "--measure", who, what]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(printed.splitlines()[-1])


class Encoder:
    """Unit vectors by chance: what matters is their number."""

    identity = EncoderIdentity("chance", "", "", "", DIMENSIONS)

    def encode_queries(self, texts: Any) -> np.ndarray:
        vectors_N_D = np.random.default_rng(len(texts)).normal(size=(len(texts), DIMENSIONS)).astype(np.float32)
        return vectors_N_D / np.linalg.norm(vectors_N_D, axis=1, keepdims=True)

    encode_passages = encode_queries


def write_made_up(folder: Path, entries: int) -> None:
    """Write a made-up HEK to `hek` and what another would keep of it to `plain.jsonl`."""
    from dataclasses import replace

    from benchmarks.viewer import made_up_hek
    from hiexp_verl.hek import Header

    encoder = Encoder()
    hek = made_up_hek(entries)
    hek = replace(hek, header=Header(encoder.identity), vectors_E_D=encoder.encode_passages(hek.entries))
    hek.save(folder / "hek")
    with (folder / "plain.jsonl").open("w", encoding="utf-8") as file:
        for entry, vector_D in zip(hek.entries, hek.vectors_E_D, strict=True):
            kept = {"id": entry.id, "level": entry.level, "title": entry.title, "description": entry.description}
            file.write(json.dumps({**kept, "questions": entry.questions, "vector": vector_D.tolist()}) + "\n")


def measure(who: str, what: str) -> None:
    """Do the work once; print the peak of this process and the seconds."""
    started = time.perf_counter()
    work = {OURS: answer_from_hek, THEIRS: answer_from_lines, BUILD: build_from_rules}[who]
    done = work(what)
    seconds = time.perf_counter() - started
    print(json.dumps({"peak_gib": _machine.peak_gib(), "seconds": seconds, "done": done}))


def answer_from_hek(folder: str) -> int:
    from hiexp_verl.hek import HEK, Retriever

    retriever = Retriever(HEK.load(Path(folder, "hek")), Encoder())
    hits = retriever.retrieve(Encoder().encode_queries(range(QUERIES)), ["e1", "e2", "e3"], TOP_K)
    return sum(map(len, hits))


def answer_from_lines(folder: str) -> int:
    from sklearn.neighbors import NearestNeighbors

    with Path(folder, "plain.jsonl").open(encoding="utf-8") as file:
        entries = [json.loads(line) for line in file]
    vectors_E_D = np.array([entry.pop("vector") for entry in entries], dtype=np.float32)
    search = NearestNeighbors(n_neighbors=TOP_K, metric="cosine", algorithm="brute").fit(vectors_E_D)
    places_N_K = search.kneighbors(Encoder().encode_queries(range(QUERIES)), return_distance=False)
    return sum(len([entries[place] for place in row]) for row in places_N_K)


def build_from_rules(questions: str) -> dict[str, int]:
    from hiexp_verl.distil.pipeline import distil
    from hiexp_verl.distil.rules import RulesDistiller
    from hiexp_verl.models.encoder import HashEncoder

    return distil(trajectories(int(questions)), RulesDistiller(), HashEncoder(DIMENSIONS)).hek.levels


def trajectories(questions: int) -> Iterator[Any]:
    """Yield a success and a failure of each question: the failure never asks for the second hop."""
    from tests.support.episodes import episode

    draw = np.random.default_rng(0)
    for number in range(questions):
        first, second, thing = draw.choice(_RELATIONS, 3, replace=False)
        name, place, answer = f"{thing.title()} {number}", f"Country {number}", f"Answer {number}"
        question = f"What is the {first} of the {second} whose {thing} is {name}?"
        hop = f'Doc 1(Title: "{name}") {name} is a {thing} in {place}.'
        last = f'Doc 1(Title: "{place}") The {first} of {place} is {answer}.'
        fields: dict[str, Any] = {"question_id": f"q{number}", "question": question, "answers": (answer,)}
        yield episode((f"{name} {thing} {second}", hop), (f"{first} of {place}", last), answer=answer, number=0, **fields)
        yield episode((f"{first} {name}", hop), answer=place, number=1, **fields)


_RELATIONS = ("film", "club", "mountain", "novel", "river", "album", "battle", "director", "founder", "capital", "author", "coach")


def result_of(uses: list[dict[str, Any]], builds: list[dict[str, Any]]) -> Result:
    """Return the claim at the largest HEK, and growth."""
    most = uses[-1]
    what = f"{QUERIES} look-ups in a HEK of {most['entries']:,} x {DIMENSIONS} just opened"
    claims = [Claim(f"Memory of {what}", "GiB", "less", most[OURS]["peak_gib"], THEIRS, most[THEIRS]["peak_gib"])]
    lines = {who: [(row["entries"], row[who]["peak_gib"]) for row in uses] for who in (OURS, THEIRS)}
    lines["vectors alone"] = [(row["entries"], row["vectors"]) for row in uses]
    grown = {"2 trajectories a question": [(row["questions"], row[BUILD]["peak_gib"]) for row in builds]}
    panels = [Panel("entries", "peak GiB", lines), Panel("questions", "peak GiB of a build", grown)]
    used = [[f"{row['entries']:,}", *(figure(row[who][key]) for who in (OURS, THEIRS) for key in ("peak_gib", "seconds"))] for row in uses]
    built = [
        [f"{row['questions']:,}", *(figure(row[BUILD][key]) for key in ("peak_gib", "seconds")), *row[BUILD]["done"].values()]
        for row in builds
    ]
    text = [
        *table(["entries", "HEK, GiB", "HEK, s", "JSON lines, GiB", "JSON lines, s"], used),
        "",
        *table(["questions of a build", "GiB", "s", "E1", "E2", "E3"], built),
    ]
    return Result("Memory of a HEK and of a build", claims, panels, {"uses": uses, "builds": builds}, text)


if __name__ == "__main__":
    main()
