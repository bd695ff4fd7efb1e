"""Does a bank that tests its entries beat one that is built once from as many rollouts? Held-out questions in everyday words.

    make assets && python -m benchmarks.evolve

SmolLM2-135M, warm-started on transcripts of other goals. A first HEK is built by rules from a few rollouts. `hiexp evolve` goes on from
it: rounds of questions in the words of the corpus and in everyday words, with a gate. Beside it a static HEK, built once from as many
rollouts of the same questions. All are played on questions in everyday words about other countries. Every step is a `hiexp` command
and is resumed where it stopped; about 25 minutes on 2 cores. Writes results/evolve.{json,md} and the rows.
"""

import argparse
import json
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from benchmarks import _machine
from benchmarks._results import publish_rows, same_settings
from benchmarks.effect import hiexp
from benchmarks.effect_lay import AT_A_TIME, KINDS, played_on, warm_start
from hiexp_verl.evaluate.plan import ROWS, TABLE_JSON
from hiexp_verl.evaluate.tables import BASE, as_markdown, pairs_of, table_of
from hiexp_verl.evolve.table import TABLE_MD
from hiexp_verl.hek.store import HEK
from hiexp_verl.io.datasets import read_corpus, read_jsonl, read_questions
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.io.manifest import MANIFEST, read_manifest
from hiexp_verl.rollout.rollout import SUMMARY, TRAJECTORIES
from hiexp_verl.search.bm25 import BM25Search
from recipes.cpu_demo.plans import right_plans
from recipes.cpu_demo.stages import balanced
from recipes.demo_data.assets import fetch
from recipes.demo_data.factbook.sets import write_lay_words

HEKS = ("start", "evolved", "static")


def main() -> None:
    """Run what is not done yet, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--warm-start", type=int, default=64, help="transcripts (default 64)")
    parser.add_argument("--start", type=int, default=20, help="questions of the first rollouts (default 20)")
    parser.add_argument("--kinds", type=int, default=13, help="kinds of questions (default 13)")
    parser.add_argument("--budget", type=int, default=600, help="rollouts of the evolution (default 600)")
    parser.add_argument("--rounds", type=int, default=4, help="(default 4)")
    parser.add_argument("--min-groups", type=int, default=24, help="of the gate (default 24)")
    parser.add_argument("--questions", type=int, default=104, help="held-out questions (default 104)")
    parser.add_argument("--seed", type=int, default=0, help="of the sampling (default 0)")
    parser.add_argument("--name", default="evolve", help="of the results (default evolve)")
    parser.add_argument("--out", type=Path, default=Path("outputs/evolve"))
    a = parser.parse_args()
    out: Path = a.out.resolve()
    same_settings(out, {key: value for key, value in vars(a).items() if key not in ("name", "out")})
    machine = _machine.facts_when_begun(out)
    write_data(out, a)
    policy = warm_start(out, a.warm_start)
    sampled = ["--seed", str(a.seed), "--batch-size", str(AT_A_TIME), "--resume"]
    rolled_out = made(out, policy, "start", ["--limit", str(a.start), "--k", "4", *sampled])
    if not (out / "evolution" / MANIFEST).is_file() or read_manifest(out / "evolution").finished is None:
        gate = ["--min-groups", str(a.min_groups), "--rounds", str(a.rounds), "--budget-rollouts", str(a.budget)]
        files = ["--hek", str(out / "heks" / "start"), "--encoder", str(fetch("minilm")), "--out", str(out / "evolution")]
        hiexp("evolve", *played_on(out, policy, "learn"), *gate, *files, *sampled)
    rounds = json.loads((out / "evolution" / "table.json").read_text(encoding="utf-8"))["rounds"]
    spent = rolled_out + sum(each["rollouts"] for each in rounds)
    count = len(read_questions(out / "learn.jsonl"))
    made(out, policy, "static", ["--k", str(round(spent / count)), *sampled])
    for name in HEKS:
        evaluate(out, policy, name, "none,full" if name == HEKS[0] else "full", a.seed)
    write(machine, a.name, out, rounds, spent)


def hek_of(out: Path, name: str) -> Path:
    """Return where a HEK lies."""
    return out / "evolution" / "hek" if name == "evolved" else out / "heks" / name


def write_data(out: Path, a: argparse.Namespace) -> None:
    """Write learn.jsonl (both wordings in turn, training countries) and check.jsonl (everyday words, validation countries)."""
    if (out / "check.jsonl").is_file():
        return
    write_lay_words(fetch("factbook"), out)
    kinds = KINDS[: a.kinds]
    plain, lay = (balanced(read_questions(out / f"{name}.jsonl"), kinds, 8 * len(kinds)) for name in ("train", "train_lay"))
    half = len(lay) // 2  # other countries than those of the plain ones, which come first in each kind
    write_jsonl(out / "learn.jsonl", [q for q in chain.from_iterable(zip_longest(plain[: len(plain) // 2], lay[half:])) if q is not None])
    write_jsonl(out / "plain.jsonl", plain)
    write_jsonl(out / "check.jsonl", balanced(read_questions(out / "val.jsonl"), kinds, a.questions))


def made(out: Path, policy: Path, name: str, options: list[str]) -> int:
    """Make a HEK of unguided rollouts, where it is not there yet; return how many rollouts there are."""
    rollouts, hek = out / f"rollouts-{name}", out / "heks" / name
    if not (rollouts / SUMMARY).is_file():
        hiexp("rollout", *played_on(out, policy, "plain" if name == "start" else "learn"), *options, "--out", str(rollouts))
    if not (hek / "CURRENT").is_file():
        hiexp("build", "--trajectories", str(rollouts / TRAJECTORIES), "--encoder", str(fetch("minilm")), "--out", str(hek))
    return json.loads((rollouts / SUMMARY).read_text(encoding="utf-8"))["episodes"]


def evaluate(out: Path, policy: Path, name: str, arms: str, seed: int) -> None:
    """Play the held-out questions with a HEK, at temperature 1."""
    folder = out / "eval" / name
    if not (folder / TABLE_JSON).is_file():
        options = ["--hek", str(hek_of(out, name)), "--arms", arms, "--temperature", "1", "--alone", "0", "--seed", str(seed)]
        hiexp("eval", *played_on(out, policy, "check"), *options, "--batch-size", str(AT_A_TIME), "--resume", "--out", str(folder))


def write(machine: dict[str, Any], name: str, out: Path, rounds: list[dict[str, Any]], spent: int) -> None:
    """Write the table, the rounds and the rows."""
    rows = []
    for hek in HEKS:
        for _, row in read_jsonl(out / "eval" / hek / ROWS, "rows"):
            rows.append(row | {"arm": hek if row["arm"] == "full" else row["arm"]})
    seconds = {line["arm"]: line["seconds"] for hek in HEKS for line in _table(out, hek)["arms"]}
    lines = [{**line, "seconds": seconds.get(line["arm"], seconds["full"])} for line in table_of(rows)]
    pairs = [pair for pair in pairs_of(rows) if pair["against"] in (BASE, "static", "start")]
    learnt = {q.id for q in read_questions(out / "learn.jsonl")}
    others, search = [q for q in read_questions(out / "train.jsonl") if q.id not in learnt], BM25Search(read_corpus(out / "corpus.jsonl"))
    plans = {hek: right_plans(HEK.load(hek_of(out, hek)), others, search, 2) for hek in HEKS}
    counts = {hek: f"{sum(right.values())} of {len(right)}" for hek, right in plans.items()}
    table = {**_table(out, HEKS[0]), "arms": lines, "pairs": pairs}
    text = ["# A bank that tests its entries beside one that is built once", "", *_machine.as_lines(machine), ""]
    text += [f"{spent} rollouts each. Plans that are right: {', '.join(f'{hek} {count}' for hek, count in counts.items())}.", ""]
    text += [as_markdown(table), "", "## Rounds", "", (out / "evolution" / TABLE_MD).read_text(encoding="utf-8")]
    found = {"machine": machine, "rollouts": spent, "right_plans": counts, "rounds": rounds, "table": table}
    publish_rows(name, found, "\n".join([*text, ""]), rows)
    print("\n".join(text))


def _table(out: Path, hek: str) -> dict[str, Any]:
    return json.loads((out / "eval" / hek / TABLE_JSON).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
