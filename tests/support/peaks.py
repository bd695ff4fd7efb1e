"""A world of peaks, countries and capitals, a policy that follows the plan it is shown, and a HEK that evolves in it."""

import json
import random
import re
from pathlib import Path

from hiexp_verl.config import GateConfig, LoopConfig, SearchConfig
from hiexp_verl.distil.rules import RulesDistiller
from hiexp_verl.errors import HiExpError
from hiexp_verl.evolve.background import Task
from hiexp_verl.evolve.evolve import run_rounds
from hiexp_verl.evolve.spec import EvolveSpec
from hiexp_verl.evolve.trial import Stage
from hiexp_verl.hek import HEK, Retriever
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.ledger.rows import LEDGER
from hiexp_verl.models.chat import Reply
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.rollout.opening import Opened
from hiexp_verl.rollout.rollout import Job
from hiexp_verl.search.bm25 import BM25Search
from hiexp_verl.types import FOUND, GIVEN, Passage, Plan, Question
from tests.support.factories import entry, hek_of

KIND = f"What is the capital of the country whose highest point is {GIVEN}?"
GOOD, BAD = (
    Plan(KIND, (f"{GIVEN} highest point country", f"capital of {FOUND}")),
    Plan(KIND, (f"{GIVEN} mountain", f"largest city of {FOUND}")),
)
_STARTS, _ENDS = ("Mar", "Tol", "Ben", "Kor", "Sal", "Vin"), ("dova", "kesh", "land", "stan", "mira", "goria", "quay", "berg")
COUNTRIES = [start + end for start in _STARTS for end in _ENDS]
PEAKS = {f"Mount {country[::-1].title()}": country for country in COUNTRIES}
CAPITALS = {country: f"{country[:4]}ville" for country in COUNTRIES}
CITIES = {country: f"{country[:4]}port" for country in COUNTRIES}
PASSAGES = [
    *(Passage(f"peak-{c}", peak, f"{peak} is the highest point of the country {c}.") for peak, c in PEAKS.items()),
    *(Passage(f"country-{c}", c, f"{c}: the capital is {CAPITALS[c]}, the largest city is {CITIES[c]}.") for c in COUNTRIES),
]
QUESTIONS = [Question(f"q{i:02d}", KIND.replace(GIVEN, peak), (CAPITALS[c],)) for i, (peak, c) in enumerate(PEAKS.items())]


class Follower:
    """Follows a plan in its prompt; without one it takes the good way in three of ten episodes, by its seed alone."""

    model = "follower"

    def __init__(self, stop_after=None):
        self.calls, self.stop_after = 0, stop_after

    async def chat(self, messages, *, seed=None, **_):
        self.calls += 1
        if self.stop_after is not None and self.calls > self.stop_after:
            raise HiExpError("the server has stopped")
        system, question = messages[0]["content"], messages[1]["content"]
        peak = next(peak for peak in PEAKS if peak in question)
        turns = [m["content"] for m in messages if m["role"] == "assistant"]
        shown = re.findall(r'worked: "(.+?)", then "(.+?)"', system)
        if turns:
            first = next(line for line in turns)
            good = "highest point country" in first
        else:
            good = "highest point country" in shown[0][0] if shown else random.Random(seed).random() < 0.3
        plan, country = GOOD if good else BAD, PEAKS[peak]
        searches = [search.replace(GIVEN, peak).replace(FOUND, country) for search in plan.searches]
        if len(turns) < len(searches):
            return Reply(f"<search>{searches[len(turns)]}</search>", "stop", 5)
        return Reply(f"<answer>{(CAPITALS if good else CITIES)[country]}</answer>", "stop", 5)

    async def close(self):
        return None


ENCODER = HashEncoder(64)


def start(plan=BAD):
    e1 = entry("e1-0001", title="a case", description="Look twice.")
    return hek_of([e1, entry("e2-0001", "e2", KIND, plan.sentence, plans=(plan,), counters={"right": 1, "wrong": 3})], ENCODER)


def evolved(out: Path, client=None, hek=None, questions=QUESTIONS, writer=None, **more):
    hek = hek or start()
    write_jsonl(out.parent / "corpus.jsonl", PASSAGES)
    hek.save(out.parent / "hek")
    spec = EvolveSpec(
        model="DIR",
        out=out,
        search=SearchConfig(corpus=str(out.parent / "corpus.jsonl"), top_k=2),
        hek=out.parent / "hek",
        questions=out.parent / "questions.jsonl",
        **{"rounds": 3, "k": 2, "gate": GateConfig(rule="strict", min_groups=12), **more},
    )
    opened = Opened(spec, BM25Search(PASSAGES), "corpus", Retriever(HEK.load(out.parent / "hek"), ENCODER), None)
    stage = Stage(client or Follower(), opened, writer or RulesDistiller(), Job(out, spec.settings))
    return list(run_rounds(spec, questions, stage, HEK.load(out.parent / "hek")))


def builder_task(folder: Path) -> tuple[Task, list[dict]]:
    """The task of a builder after one round in this world, and the episodes that it reads."""
    evolved(folder / "out", rounds=1)
    episodes = sorted((folder / "out" / "rounds").rglob("trajectories.jsonl"))
    lines = [json.loads(line) for path in episodes for line in path.read_text().splitlines()]
    write_jsonl(folder / "000001.jsonl", [{**row, "id": f"{row['id']}@{i}"} for i, row in enumerate(lines)])
    root = folder / "out" / "hek"
    ledger = str(root / LEDGER / "evolve.jsonl")
    return Task(str(root / "0001"), "hash:64", (str(folder / "000001.jsonl"),), ledger, 1, LoopConfig(enabled=True)), lines
