"""What is a policy's own experience worth? Questions in everyday words, over a corpus that has words of its own; no training by RL.

    make assets && python -m benchmarks.effect_lay

SmolLM2-135M, warm-started on transcripts of other goals, rolls out questions in the words of the corpus. A HEK is built by rules from
these rollouts, and played on questions in everyday words about other countries: without experience, with all of it, with wrong and
random entries, with the right plans (oracle), with one part of the method at a time put back to what it was or to what the paper
does, and with HEKs that the policy itself and a larger model distilled. Goals of the questions are in no transcript of the warm start.
Every step is a `hiexp` command and is resumed where it stopped; an hour and a half on 2 cores. Writes results/effect_lay.{json,md} and
the rows.
"""

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks import _machine
from benchmarks._results import drawn, publish_rows, same_settings, table
from benchmarks.effect import PAPER, hiexp
from hiexp_verl.evaluate.plan import ROWS, TABLE_JSON, part_folder
from hiexp_verl.evaluate.tables import BASE, as_markdown, pairs_of, table_of
from hiexp_verl.guide.record import EpisodeRecord
from hiexp_verl.hek.schema import Header
from hiexp_verl.hek.store import HEK
from hiexp_verl.io.datasets import read_corpus, read_jsonl, read_questions, read_trajectories
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.masking import kind_of
from hiexp_verl.models.encoder import load_encoder
from hiexp_verl.rollout.rollout import TRAJECTORIES
from hiexp_verl.search.bm25 import BM25Search
from hiexp_verl.types import FOUND, GIVEN, Entry, Plan
from recipes.cpu_demo.plans import right_plans
from recipes.cpu_demo.stages import balanced
from recipes.demo_data.assets import fetch
from recipes.demo_data.factbook.lay_words import HELD_OUT, KEYS, country_phrase
from recipes.demo_data.factbook.sets import write_lay_words

EPISODES = ("--max-tokens", "96", "--max-searches", "3", "--top-k", "2", "--max-words", "32")
ORACLE = "oracle"
AT_A_TIME = 64  # episodes
WAYS = (("capital",), ("highest point",), ("capital", "customer"))
KINDS = [" > ".join([*way, goal]) for way in WAYS for goal in HELD_OUT]
CONTROLS = "none,full,random,shuffled"
BUILDS = {"own": (), "support 1": ("--plan-support", "1"), "clusters": ("--plans", "case"), "self": (), "teacher": ()}
TEACHER = "qwen-1.5b"  # distils the rollouts of the small policy
SAMPLED, GREEDY, ONE_CHANGE = "Temperature 1", "Greedy", "Temperature 1, one part of the method changed"  # tables of the results


@dataclass(frozen=True)
class Played:
    """One evaluation: a HEK, its arms, and what is set otherwise than by default."""

    name: str  # what its arm `full` is called in the table
    hek: str
    arms: str = "full"
    settings: tuple[str, ...] = ()
    part: str = SAMPLED

    def arm(self, arm: str) -> str:
        """Return what an arm is called in the table."""
        return self.name if arm == "full" else arm


PLAYED = (
    Played("own", "own-0", CONTROLS),
    Played("right plans", ORACLE),
    Played("paper: five entries of clusters, whole question", "clusters-0", settings=PAPER),
    Played("own", "own-0", "none,full,shuffled", part=GREEDY),
    Played("five entries", "own-0", settings=("prompt.top_k=5",), part=ONE_CHANGE),
    Played("E2 of clusters", "clusters-0", part=ONE_CHANGE),
    Played("not instantiated", "own-0", settings=("prompt.instantiate=false",), part=ONE_CHANGE),
    Played("matched by the whole question", "own-0", settings=("prompt.match=question",), part=ONE_CHANGE),
    Played("plans of one question", "support 1-0", part=ONE_CHANGE),
    Played("own, rollouts of seed 1", "own-1"),
    Played("own, rollouts of seed 2", "own-2"),
    Played("right plans", ORACLE, part=GREEDY),
    Played("paper: five entries of clusters, whole question", "clusters-0", settings=PAPER, part=GREEDY),
    Played("own", "own-0", "random", part=GREEDY),
    Played("E1 by the kind of question", "own-0", settings=("tool.match=kind",)),
    Played("E1 by the kind of question", "own-0", settings=("tool.match=kind",), part=GREEDY),
    Played("distilled by the policy itself", "self-0"),
    Played("distilled by a 1.5B model", "teacher-0"),
    Played("distilled by the policy itself", "self-0", part=GREEDY),
    Played("distilled by a 1.5B model", "teacher-0", part=GREEDY),
)


def main() -> None:
    """Run what is not done yet, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--warm-start", type=int, default=160, help="transcripts (default 160)")
    parser.add_argument("--learn", type=int, default=156, help="questions rolled out, of 39 kinds (default 156)")
    parser.add_argument("--k", type=int, default=4, help="rollouts per question (default 4)")
    parser.add_argument("--questions", type=int, default=420, help="held-out questions (default 420)")
    parser.add_argument("--split", choices=("val", "test"), default="test", help="countries of these; to choose a setting: val")
    parser.add_argument("--only", type=int, help="the first N evaluations only")
    parser.add_argument("--name", default="effect_lay", help="of the results (default effect_lay)")
    parser.add_argument("--out", type=Path, default=Path("outputs/effect_lay"))
    a = parser.parse_args()
    out: Path = a.out.resolve()
    same_settings(out, {key: getattr(a, key) for key in ("warm_start", "learn", "k", "questions", "split")})
    machine = _machine.facts_when_begun(out)
    write_data(out, a.learn, a.questions, a.split)
    policy = warm_start(out, a.warm_start)
    write_oracle(out / "heks" / ORACLE)
    plans: dict[str, str] = {}
    for number, played in enumerate(PLAYED[: a.only]):
        if played.hek not in (ORACLE, *plans):
            plans[played.hek] = made(out, policy, played.hek, a.k)
        evaluate(out, policy, number, played, a.questions // 2 if played.part == ONE_CHANGE else a.questions)
        write(machine, a.name, out, plans, PLAYED[: number + 1])


def write_data(out: Path, learn: int, held_out: int, split: str) -> None:
    """Write learn.jsonl (words of the corpus, training countries) and check.jsonl (everyday words, other countries), all kinds alike."""
    if not (out / "check.jsonl").is_file():
        write_lay_words(fetch("factbook"), out)
        write_jsonl(out / "learn.jsonl", balanced(read_questions(out / "train.jsonl"), KINDS, learn))
        write_jsonl(out / "check.jsonl", balanced(read_questions(out / f"{split}.jsonl"), KINDS, held_out))


def warm_start(out: Path, transcripts: int) -> Path:
    """Return the policy."""
    policy = out / "policy"
    if not policy.is_dir():
        files = ["--questions", str(out / "warm.jsonl"), "--corpus", str(out / "corpus.jsonl"), "--out", str(policy)]
        command = ["--model", str(fetch("smollm2-135m")), *files, "--limit", str(transcripts)]
        subprocess.run([sys.executable, "-m", "recipes.cpu_demo.warm_start", *command], check=True)
    return policy


def made(out: Path, policy: Path, name: str, k: int) -> str:
    """Make a HEK of `BUILDS` from rollouts with the seed in its name; return how many of its plans are right."""
    (build, seed), hek = name.split("-"), out / "heks" / name
    if not (hek / "CURRENT").is_file():
        rollouts = out / f"rollouts-{seed}"
        if not (rollouts / "summary.json").is_file():
            sampled = ["--k", str(k), "--seed", seed, "--batch-size", str(AT_A_TIME)]
            hiexp("rollout", *played_on(out, policy, "learn"), *sampled, "--resume", "--out", str(rollouts))
        made_of = ["--trajectories", str(rollouts / "trajectories.jsonl"), "--encoder", str(fetch("minilm"))]
        hiexp("build", *made_of, *BUILDS[build], "--distiller", distiller_of(build, policy), "--out", str(hek), "--resume")
    learnt = {q.id for q in read_questions(out / "learn.jsonl")}
    others = [q for q in read_questions(out / "train.jsonl") if q.id not in learnt]
    right = right_plans(HEK.load(hek), others, BM25Search(read_corpus(out / "corpus.jsonl")), 2)
    return f"{sum(right.values())} of {len(right)}"


def distiller_of(build: str, policy: Path) -> str:
    """Return who distils; the larger model is fetched where it does."""
    if build == "self":
        return f"vllm-local:{policy}"
    return f"vllm-local:{fetch(TEACHER)}" if build == "teacher" else "rules"


def write_oracle(folder: Path) -> None:
    """Write a HEK of the right plan for every kind of question."""
    if (folder / "CURRENT").is_file():
        return
    encoder, entries = load_encoder(str(fetch("minilm"))), []
    for way in WAYS:
        for name, goal in HELD_OUT.items():
            kind = kind_of(goal.plain.format(c=country_phrase(way, GIVEN)))
            words = (*(KEYS[key].searches[0] for key in way), goal.searches[0])
            plan = Plan(kind, tuple(each.format(FOUND if i else GIVEN) for i, each in enumerate(words)))
            entries.append(Entry(f"{'-'.join(way)}-{name}".replace(" ", "_"), "e2", kind, plan.sentence, plans=(plan,)))
    vectors_E_D = encoder.encode_passages([entry.title for entry in entries])
    HEK(Header(encoder.identity, distiller=ORACLE), tuple(entries), vectors_E_D).save(folder)


def played_on(out: Path, policy: Path, questions: str) -> list[str]:
    """Return the options of a rollout or an evaluation."""
    files = ["--questions", str(out / f"{questions}.jsonl"), "--corpus", str(out / "corpus.jsonl"), "--model", str(policy)]
    return [*files, *EPISODES]


def evaluate(out: Path, policy: Path, number: int, played: Played, limit: int) -> None:
    """Play one evaluation, if it is not done."""
    folder = folder_of(out, number)
    if (folder / TABLE_JSON).is_file():
        return
    options = ["--hek", str(out / "heks" / played.hek), "--arms", played.arms, "--limit", str(limit)]
    options += ["--temperature", "0" if played.part == GREEDY else "1", "--alone", "0", "--batch-size", str(AT_A_TIME)]
    options += ["--set", *played.settings] if played.settings else []
    hiexp("eval", *played_on(out, policy, "check"), *options, "--resume", "--out", str(folder))


def folder_of(out: Path, number: int) -> Path:
    """Return where an evaluation lies."""
    return out / "eval" / f"{number:02d}"


def rows_of(out: Path, number: int, played: Played) -> list[dict[str, Any]]:
    """Return the rows of an evaluation."""
    rows = [row for _, row in read_jsonl(folder_of(out, number) / ROWS, "rows")]
    return [{**row, "part": played.part, "arm": played.arm(row["arm"])} for row in rows]


def write(machine: dict[str, Any], name: str, out: Path, plans: dict[str, str], done: Sequence[Played]) -> None:
    """Write a table for each part, and the rows."""
    rows, tables = [], {}
    for part in dict.fromkeys(played.part for played in done):
        of_part = [(number, played) for number, played in enumerate(done) if played.part == part]
        found = [row for number, played in of_part for row in rows_of(out, number, played)]
        rows += found
        if part == ONE_CHANGE:  # compared with what was played above, on the same questions
            these = {row["id"] for row in found}
            found = [row for row in rows_of(out, 0, PLAYED[0]) if row["arm"] in (BASE, "own") and row["id"] in these] + found
            of_part = [(0, PLAYED[0]), *of_part]
        played_as = [json.loads((folder_of(out, number) / TABLE_JSON).read_text(encoding="utf-8")) for number, _ in of_part]
        seconds = {
            played.arm(line["arm"]): line["seconds"] for (_, played), each in zip(of_part, played_as, strict=True) for line in each["arms"]
        }
        pairs = [pair for pair in pairs_of(found) if pair["against"] in (BASE, "own") or pair["arm"] == "own"]
        took = round(sum(each["seconds"] for each in played_as), 1)
        lines = [{**line, "seconds": seconds[line["arm"]]} for line in table_of(found)]
        asked = len({row["id"] for row in found})
        tables[part] = {**played_as[0], "questions": asked, "seconds": took, "arms": lines, "pairs": pairs}  # settings of today's defaults
    rollouts = json.loads((out / "rollouts-0" / "summary.json").read_text(encoding="utf-8"))
    ways = {q.id: " > ".join(q.meta["keys"]) for q in read_questions(out / "check.jsonl")}
    text = ["# Own experience, without training: questions in everyday words", "", *_machine.as_lines_when_written(machine), ""]
    text += [f"HEKs of {rollouts['episodes']} rollouts, {rollouts['correct']:.2f} of them right; plans that are right: "]
    text += [", ".join(f"{hek} {right}" for hek, right in plans.items()) + "."]
    for title, each in tables.items():
        text += ["", f"## {title}", "", as_markdown(each)]
        text += by_way([row for row in rows if row["part"] == title], ways) if title != ONE_CHANGE else []
    text += ["", "## Minimum score, computed from own and none at temperature 1", "", *by_score(out), "", *drawn(name, tables)]
    publish_rows(name, {"machine": machine, "right_plans": plans, "tables": tables}, "\n".join(text), rows)


def by_score(out: Path) -> list[str]:
    """Return what a minimum score for the prompt would have done: below it, a question counts as it was answered without experience."""
    without = {row["id"]: row["concise"] for row in rows_of(out, 0, PLAYED[0]) if row["arm"] == BASE}
    played = []
    for t in read_trajectories(part_folder(folder_of(out, 0), "check", 0, "full") / TRAJECTORIES):
        score = max((shown["score"] for shown in EpisodeRecord.of(t).shown if shown["place"] == "prompt"), default=-1.0)
        played.append((score, t.extra["concise"], without[t.question_id]))
    cells = []
    for least in np.quantile([score for score, *_ in played], [0, 0.1, 0.25, 0.5, 0.75, 0.9]):
        shown = fmean(score >= least for score, *_ in played)
        right = fmean(own if score >= least else none for score, own, none in played)
        cells.append([f"{least:.3f}", f"{shown:.2f}", f"{right:.3f}"])
    return table(["minimum score of the prompt", "questions shown an entry", "correct"], cells)


def by_way(rows: Sequence[dict[str, Any]], ways: Mapping[str, str]) -> list[str]:
    """Return the share right of every arm by the way to the country; two keys make three searches."""
    counts = Counter(ways[row["id"]] for row in rows if row["arm"] == BASE)
    cells = [
        [arm, *(f"{fmean(row['concise'] for row in rows if row['arm'] == arm and ways[row['id']] == way):.3f}" for way in counts)]
        for arm in dict.fromkeys(row["arm"] for row in rows)
    ]
    return table(["correct by way to the country", *(f"{way} ({count})" for way, count in counts.items())], cells)


if __name__ == "__main__":
    main()
