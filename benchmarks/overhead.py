"""What HiExp adds to the wall time of a rollout: 256 concurrent episodes against a server with fixed latency.

    python -m benchmarks.overhead [--size smoke|bench|long]

Each episode is played by `HiExpAgentLoop` as verl constructs it, four turns: three searches and an answer. The server sleeps
40 ms a token and recites, so that the tokens generated are the same with and without HiExp; turns differ in length, as they do.
Without is `hiexp.enabled=false`, verl's own tool agent token for token. Search is BM25 over the factbook; the HEK has 2,000
entries of 300 factbook questions, and MiniLM. Every question is a new one and is compared with those 300, every search shows an
E1. Retrieval lives in its Ray actor on the same cores. Four rollouts a question, and two that search for the same: of the queries
of our rollouts 0.40 to 0.62 are distinct (SmolLM2, two or four a question, temperature 1). With and without take turns within one
run; the ratio is that of the medians. `again` plays the round with HiExp once more, when the actor remembers all vectors: what is
left is what HiExp costs beside its encoder. Beside it the hard case: twice as fast a server, and no query asked twice. Growth:
over the latency of a token, and over the episodes at a time.
"""

import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray

from benchmarks import _machine
from benchmarks._results import Claim, Panel, Result, command_line, figure, folder_of, publish, table
from benchmarks._rollout import Worker, compose, write_script
from benchmarks.retrieval import write_inputs
from hiexp_verl.io.datasets import read_corpus
from hiexp_verl.io.files import cache_dir
from hiexp_verl.models.encoder import load_encoder

WAYS = ("without", "with", "again")
CONFIG_OF = {"without": "without", "with": "with", "again": "with"}
WANTED = 1.02  # of the ratio
Row = dict[str, Any]


@dataclass(frozen=True)
class Point:
    episodes: int
    milliseconds: float  # a token
    rounds: int
    sharing: int = 2  # rollouts that search for the same
    ways: tuple[str, ...] = WAYS


@dataclass(frozen=True)
class Size:
    """The point of the claim, and those that differ from it in one respect."""

    claim: Point
    hard: Point
    growth_rounds: int
    milliseconds: tuple[float, ...]
    episodes: tuple[int, ...]
    entries: int = 2_000

    def points(self) -> list[Point]:
        """Return all points, that of the claim first."""
        other = replace(self.claim, rounds=self.growth_rounds, ways=WAYS[:2])
        latencies = [replace(other, milliseconds=each) for each in self.milliseconds]
        return [self.claim, self.hard, *latencies, *(replace(other, episodes=each) for each in self.episodes)]


SIZES = {
    "smoke": Size(Point(4, 2, 1), Point(4, 1, 1, 1), 1, (3,), (8,), entries=100),
    "bench": Size(Point(256, 40, 2), Point(256, 20, 1, 1), 1, (20,), (64,)),
    "long": Size(Point(256, 40, 9), Point(256, 20, 9, 1), 3, (5, 10, 20, 80), (16, 32, 64, 128)),
}


def main() -> None:
    """Measure, print, write."""
    arguments = command_line(__doc__).parse_args()
    machine, size = _machine.facts(), SIZES[arguments.size]
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), size)
    publish("overhead", machine, result_of(rows, size), folder_of(arguments))


def measure(folder: Path, size: Size) -> list[Row]:
    """Play all points with and without HiExp, in an order that alternates; return what each of them took."""
    cache = cache_dir()
    encoder_spec = str(cache / "minilm")
    settings, questions = write_inputs(folder, load_encoder(encoder_spec), encoder_spec, size.entries)
    corpus = settings.search.corpus
    titles = [passage.title for passage in read_corpus(Path(corpus))]
    common = (f"hiexp.search.corpus={corpus}", f"hiexp.hek={settings.hek}", f"hiexp.encoder={encoder_spec}", "hiexp.tool.min_score=-1.0")
    configs = {"with": compose(*common), "without": compose(*common, "hiexp.enabled=false")}
    root = str(Path(__file__).resolve().parents[1])
    ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False, runtime_env={"env_vars": {"PYTHONPATH": root}})
    worker = ray.remote(Worker).options(num_cpus=1).remote(configs, cache / "smollm2-135m")

    def play(way: str, point: Point, seed: int) -> Row:
        script = write_script(point.episodes, questions, titles, seed, point.sharing)
        return ray.get(worker.play.remote(CONFIG_OF[way], script, point.milliseconds / 1000))

    warm_up = Point(size.claim.episodes, 1, 1)  # known questions are encoded when one first comes near them: once in a run
    for way in WAYS:
        play(way, warm_up, 0)
    rows = play_all(size.points(), play)
    ray.shutdown()
    check(rows)
    return rows


def check(rows: list[Row]) -> None:
    """Stop where what was measured is not what was meant."""
    tokens: dict[int, set[int]] = defaultdict(set)
    for row in rows:
        tokens[row["seed"]].add(row["generated_tokens"])
        lessons = 0 if row["way"] == "without" else row["searches"]
        if row["failed"] or row["lessons"] != lessons:
            raise RuntimeError(
                f"{row['failed']} searches or look-ups failed, and {row['lessons']} of {lessons} searches showed an E1: {row}"
            )
    if any(len(counts) > 1 for counts in tokens.values()):
        raise RuntimeError("the ways of a round did not generate the same tokens")


def play_all(points: list[Point], play: Callable[[str, Point, int], Row]) -> list[Row]:
    """Play every round of every point, without HiExp first in one and last in the next."""
    rows: list[Row] = []
    for point in points:
        for number in range(point.rounds):
            seed = len({row["seed"] for row in rows}) + 1  # other questions and queries in every round
            for way in point.ways if number % 2 else (*point.ways[1:], point.ways[0]):
                where = {**where_of(point), "round": number, "seed": seed, "way": way}
                rows.append({**where, **play(way, point, seed)})
                print(json.dumps(rows[-1]), flush=True)
    return rows


def result_of(rows: list[Row], size: Size) -> Result:
    """Return the claims at their point, and growth."""
    at = {point: medians(rows, point) for point in size.points()}
    here = at[size.claim]
    instead, hard = "verl's own agent loop", at[size.hard]
    what = f"Rollout of {size.claim.episodes} episodes at a time, {size.claim.milliseconds:g} ms a token"
    harder = f"The same, {size.hard.milliseconds:g} ms a token and no query asked twice"
    claims = [
        Claim(what, "s", "less", here["with"], instead, here["without"], WANTED),
        Claim(f"{what}, vectors remembered", "s", "less", here["again"], instead, here["without"]),
        Claim(harder, "s", "less", hard["with"], instead, hard["without"]),
        Claim(f"{harder}, vectors remembered", "s", "less", hard["again"], instead, hard["without"]),
    ]

    easy = [point for point in at if point.sharing == size.claim.sharing]
    latencies = [point for point in easy if point.episodes == size.claim.episodes]
    concurrent = [point for point in easy if point.milliseconds == size.claim.milliseconds]
    panels = [
        panel("ms a token", f"{size.claim.episodes} episodes", {point.milliseconds: at[point] for point in latencies}),
        panel("episodes at a time", f"{size.claim.milliseconds:g} ms a token", {point.episodes: at[point] for point in concurrent}),
    ]
    grown = []
    for point, found in at.items():
        seconds = (found["without"], found["with"], found["with"] / found["without"])
        grown.append([point.episodes, f"{point.milliseconds:g}", point.sharing, point.rounds, *map(figure, seconds)])
    text = [
        *table(["episodes at a time", "ms a token", "rollouts a query", "rounds", "without, s", "with, s", "ratio"], grown),
        "",
        *table(["", "CPU seconds of the worker", "tokens generated", "of experience", "seconds of all rounds"], counts(rows, size.claim)),
    ]
    return Result("Wall time of a rollout with and without HiExp", claims, panels, {"rows": rows}, text)


def panel(x: str, label: str, found: dict[float, dict[str, float]]) -> Panel:
    """Return the growth of the ratio, with the goal."""
    ratios = sorted((at, seconds["with"] / seconds["without"]) for at, seconds in found.items())
    return Panel(x, "seconds with HiExp : without", {label: ratios, "wanted": [(at, WANTED) for at, _ in ratios]}, ratio=True)


def where_of(point: Point) -> Row:
    return {"episodes": point.episodes, "milliseconds": point.milliseconds, "sharing": point.sharing}


def at_point(rows: list[Row], point: Point, way: str) -> list[Row]:
    wanted = {**where_of(point), "way": way}
    return [row for row in rows if wanted.items() <= row.items()]


def medians(rows: list[Row], point: Point) -> dict[str, float]:
    """Return seconds by way."""
    return {way: statistics.median(row["seconds"] for row in at_point(rows, point, way)) for way in point.ways}


def counts(rows: list[Row], point: Point) -> list[list[str]]:
    """Return lines of a table: medians of what was counted, and the seconds of every round."""
    lines = []
    for way in point.ways:
        here = at_point(rows, point, way)
        counted = ("cpu_seconds_of_the_worker", "generated_tokens", "experience_tokens")
        middle = [figure(statistics.median(row[key] for row in here)) for key in counted]
        lines.append([way, *middle, ", ".join(f"{row['seconds']:.2f}" for row in here)])
    return lines


if __name__ == "__main__":
    main()
