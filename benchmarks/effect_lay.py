"""What is a policy's own experience worth? Questions in everyday words, over a corpus that has words of its own; no training by RL.

    make assets && python -m benchmarks.effect_lay

SmolLM2-135M, warm-started on transcripts of other goals, rolls out questions in the words of the corpus. A HEK is built by rules from
these rollouts, and played on questions in everyday words about other countries: without experience, with all of it, with wrong and
random entries, with the right plans (oracle), and with one part of the method at a time put back to what it was, or to what the paper
does. Goals of the questions are in no transcript of the warm start. Every step is a `hiexp` command and is resumed where it stopped;
about an hour on 2 cores. Writes results/effect_lay.{json,md} and the rows.
"""

import argparse
import gzip
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import _machine
from benchmarks._results import RESULTS, same_settings
from benchmarks.effect import hiexp
from hiexp_verl.evaluate.plan import ROWS, TABLE_JSON
from hiexp_verl.evaluate.tables import BASE, as_markdown, pairs_of, table_of
from hiexp_verl.hek.schema import Header
from hiexp_verl.hek.store import HEK
from hiexp_verl.io.datasets import read_corpus, read_jsonl, read_questions
from hiexp_verl.io.files import atomic_writer, write_jsonl
from hiexp_verl.masking import kind_of
from hiexp_verl.models.encoder import load_encoder
from hiexp_verl.search.bm25 import BM25Search
from hiexp_verl.types import FOUND, GIVEN, Entry, Plan
from recipes.cpu_demo.plans import right_plans
from recipes.cpu_demo.stages import balanced
from recipes.demo_data.assets import fetch
from recipes.demo_data.factbook.lay_words import HELD_OUT, KEYS, country_phrase
from recipes.demo_data.factbook.sets import write_lay_words

EPISODES = ("--max-tokens", "96", "--max-searches", "3", "--top-k", "2", "--max-words", "32")
WAYS = (("capital",), ("highest point",), ("anthem",), ("capital", "customer"), ("highest point", "customer"))
KINDS = [" > ".join([*way, goal]) for way in WAYS for goal in HELD_OUT]
CONTROLS = "none,full,random,shuffled"
BUILDS = {"own": (), "support 1": ("--plan-support", "1"), "clusters": ("--plans", "case")}


@dataclass(frozen=True)
class Played:
    """One evaluation: a HEK, its arms, and what is set otherwise than by default."""

    name: str  # what its arm `full` is called in the table
    hek: str
    arms: str = "full"
    settings: tuple[str, ...] = ()
    temperature: float = 1.0


PLAYED = (
    Played("own", "own-0", CONTROLS),
    Played("own, rollouts of seed 1", "own-1"),
    Played("own, rollouts of seed 2", "own-2"),
    Played("right plans", "oracle"),
    Played("paper: five entries of clusters, whole question", "clusters-0",
           settings=("prompt.top_k=5", "prompt.match=question", "prompt.instantiate=false")),
    Played("five entries", "own-0", settings=("prompt.top_k=5",)),
    Played("three entries", "own-0", settings=("prompt.top_k=3",)),
    Played("not instantiated", "own-0", settings=("prompt.instantiate=false",)),
    Played("matched by the whole question", "own-0", settings=("prompt.match=question",)),
    Played("matched by the way", "own-0", settings=("prompt.match=way",)),
    Played("plans of one question", "support 1-0"),
    Played("E2 of clusters", "clusters-0"),
    Played("minimum score 0.6", "own-0", settings=("prompt.min_score=0.6",)),
    Played("own", "own-0", CONTROLS, temperature=0.0),
    Played("right plans", "oracle", temperature=0.0),
    Played("paper: five entries of clusters, whole question", "clusters-0",
           settings=("prompt.top_k=5", "prompt.match=question", "prompt.instantiate=false"), temperature=0.0),
)  # fmt: skip


def main() -> None:
    """Run what is not done yet, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--warm-start", type=int, default=160, help="transcripts (default 160)")
    parser.add_argument("--learn", type=int, default=260, help="questions rolled out, of 65 kinds (default 260)")
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
    plans = {hek: right for seed in range(3) for hek, right in heks(out, policy, seed, a.k).items()}
    oracle(out)
    for number, played in enumerate(PLAYED[: a.only]):
        evaluate(out, policy, number, played)
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


def heks(out: Path, policy: Path, seed: int, k: int) -> dict[str, str]:
    """Roll out with the seed and build; return how many plans of each HEK are right."""
    rollouts = out / f"rollouts-{seed}"
    if not (rollouts / "summary.json").is_file():
        hiexp("rollout", *played_on(out, policy, "learn"), "--k", str(k), "--seed", str(seed), "--resume", "--out", str(rollouts))
    search, learnt = BM25Search(read_corpus(out / "corpus.jsonl")), {q.id for q in read_questions(out / "learn.jsonl")}
    others = [q for q in read_questions(out / "train.jsonl") if q.id not in learnt]
    found = {}
    for name, options in BUILDS.items() if seed == 0 else (("own", ()),):
        hek = out / "heks" / f"{name}-{seed}"
        if not (hek / "CURRENT").is_file():
            made_of = ["--trajectories", str(rollouts / "trajectories.jsonl"), "--encoder", str(fetch("minilm"))]
            hiexp("build", *made_of, *options, "--out", str(hek))
        right = right_plans(HEK.load(hek), others, search, 2)
        found[f"{name}-{seed}"] = f"{sum(right.values())} of {len(right)}"
    return found


def oracle(out: Path) -> None:
    """Write a HEK of the right plan for every kind of question."""
    folder = out / "heks" / "oracle"
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
    HEK(Header(encoder.identity, distiller="oracle"), tuple(entries), vectors_E_D).save(folder)


def played_on(out: Path, policy: Path, questions: str) -> list[str]:
    """Return the options of a rollout or an evaluation."""
    files = ["--questions", str(out / f"{questions}.jsonl"), "--corpus", str(out / "corpus.jsonl"), "--model", str(policy)]
    return [*files, *EPISODES]


def folder_of(out: Path, number: int) -> Path:
    """Return where an evaluation lies."""
    return out / "eval" / f"{number:02d}"


def evaluate(out: Path, policy: Path, number: int, played: Played) -> None:
    """Play one evaluation, if it is not done."""
    folder = folder_of(out, number)
    if not (folder / TABLE_JSON).is_file():
        options = [
            "--hek",
            str(out / "heks" / played.hek),
            "--arms",
            played.arms,
            "--temperature",
            str(played.temperature),
            "--alone",
            "0",
            "--batch-size",
            "32",
        ]
        options += ["--set", *played.settings] if played.settings else []
        hiexp("eval", *played_on(out, policy, "check"), *options, "--resume", "--out", str(folder))


def write(machine: dict[str, Any], name: str, out: Path, plans: dict[str, str], done: Sequence[Played]) -> None:
    """Write one table for each temperature, and the rows."""
    rows, parts = [], {}
    for temperature in sorted({played.temperature for played in done}, reverse=True):
        mine = [(number, played) for number, played in enumerate(done) if played.temperature == temperature]
        found = [
            {**row, "arm": played.name if row["arm"] == "full" else row["arm"], "temperature": temperature}
            for number, played in mine
            for _, row in read_jsonl(folder_of(out, number) / ROWS, "rows")
        ]
        tables = [json.loads((folder_of(out, number) / TABLE_JSON).read_text(encoding="utf-8")) for number, _ in mine]
        seconds = {line["arm"]: line["seconds"] for table in tables for line in table["arms"]}
        lines = [{**line, "seconds": seconds.get(line["arm"], seconds["full"])} for line in table_of(found)]
        pairs = [pair for pair in pairs_of(found) if pair["against"] in (BASE, "own") or pair["arm"] == "own"]
        took = round(sum(table["seconds"] for table in tables), 1)
        parts[f"temperature {temperature:g}"] = {**tables[0], "seconds": took, "arms": lines, "pairs": pairs}
        rows += found
    with atomic_writer(RESULTS / f"{name}.json") as file:
        file.write(json.dumps({"machine": machine, "right_plans": plans, "tables": parts}, indent=1) + "\n")
    rollouts = json.loads((out / "rollouts-0" / "summary.json").read_text(encoding="utf-8"))
    kinds = Counter(" > ".join(q.meta["keys"]) for q in read_questions(out / "check.jsonl"))
    text = ["# Own experience, without training: questions in everyday words", "", *_machine.as_lines(machine), ""]
    text += [f"HEKs of {rollouts['episodes']} rollouts, {rollouts['correct']:.2f} of them right; plans that are right: "]
    text += [", ".join(f"{hek} {right}" for hek, right in plans.items()) + ". Held-out questions by way to the country: "]
    text += [", ".join(f"{way} {count}" for way, count in kinds.items()) + "."]
    for title, table in parts.items():
        text += ["", f"## {title.capitalize()}", "", as_markdown(table)]
    with atomic_writer(RESULTS / f"{name}.md") as file:
        file.write("\n".join(text))
    with gzip.GzipFile(RESULTS / f"{name}.rows.jsonl.gz", "wb", mtime=0) as file:
        file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


if __name__ == "__main__":
    main()
