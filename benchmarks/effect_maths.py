"""Is a model's own experience in mathematics worth something, on the same kind of problems and on others? No training by RL.

    python -m recipes.demo_data qwen-1.5b minilm && python -m benchmarks.effect_maths

The model solves problems of gsm8k and of MATH-500 several times each; a HEK is built of each set by rules, and one of gsm8k by the model
itself. All are played greedily on problems that no rollout had: 300 of gsm8k, 100 of MATH-500. Controls are entries at random, entries of
others, the HEK of the other set (does experience transfer?), and with --search-hek one of the search domain. Every step is a `hiexp`
command and is resumed where it stopped; about two hours on 2 cores. Writes results/effect_maths.{json,md} and the rows.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import _machine
from benchmarks._results import publish_rows, same_settings
from benchmarks.effect import hiexp
from hiexp_verl.evaluate.plan import ROWS, TABLE_JSON
from hiexp_verl.evaluate.tables import BASE, as_markdown, pairs_of, table_of
from hiexp_verl.io.datasets import read_jsonl
from recipes.demo_data.assets import fetch
from recipes.demo_data.maths import write_maths_sets

NAME = "effect_maths"  # of the results
SETS = {"gsm8k": 300, "math500": 100}  # problems that each is played on
RULES, ITSELF, SEARCH = "rules", "itself", "search"


@dataclass(frozen=True)
class Played:
    """One evaluation of a set."""

    name: str  # what its arm `full` is called in the table
    problems: str  # a set
    hek: str
    arms: str = "full"


PLAYED = (
    Played("own", "gsm8k", f"gsm8k-{RULES}", f"{BASE},full,random,shuffled"),
    Played("of MATH", "gsm8k", f"math500-{RULES}"),
    Played("own", "math500", f"math500-{RULES}", f"{BASE},full,random"),
    Played("of gsm8k", "math500", f"gsm8k-{RULES}"),
    Played("distilled by itself", "gsm8k", f"gsm8k-{ITSELF}"),
    Played("of search", "gsm8k", SEARCH),
)


def main() -> None:
    """Run what is not done yet, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="qwen-1.5b", choices=("qwen-0.5b", "qwen-1.5b"), help="(default qwen-1.5b)")
    parser.add_argument("--learn", type=int, default=100, help="problems of each set that are rolled out (default 100)")
    parser.add_argument("--k", type=int, default=4, help="rollouts per problem (default 4)")
    parser.add_argument("--max-tokens", type=int, default=400, help="of an answer (default 400)")
    parser.add_argument("--search-hek", type=Path, help="a HEK of the search domain, as a control")
    parser.add_argument("--only", type=int, help="the first N evaluations only")
    parser.add_argument("--out", type=Path, default=Path("outputs/effect_maths"))
    a = parser.parse_args()
    out: Path = a.out.resolve()
    same_settings(out, {key: getattr(a, key) for key in ("model", "learn", "k", "max_tokens")})
    machine = _machine.facts_when_begun(out)
    write_maths_sets(None, out / "data")
    model = str(fetch(a.model))
    common = ["--domain", "maths", "--model", model, "--max-tokens", str(a.max_tokens), "--max-model-len", "2048", "--batch-size", "64"]
    wanted = [played for played in PLAYED if played.hek != SEARCH or a.search_hek][: a.only]
    done: list[tuple[Played, Path]] = []
    for number, played in enumerate(wanted):
        hek = a.search_hek if played.hek == SEARCH else built(out, played.hek, model, [*common, "--k", str(a.k), "--limit", str(a.learn)])
        folder = out / "eval" / f"{number:02d}"
        if not (folder / TABLE_JSON).is_file():
            files = ["--questions", str(out / "data" / played.problems / "test.jsonl"), "--limit", str(SETS[played.problems])]
            options = ["--hek", str(hek), "--arms", played.arms, "--alone", "0", *(["--other-domain"] if played.hek == SEARCH else [])]
            hiexp("eval", *files, *common, *options, "--resume", "--out", str(folder))
        done.append((played, folder))
        write(machine, out, done)


def built(out: Path, name: str, model: str, options: list[str]) -> Path:
    """Return the HEK SET-DISTILLER, made of rollouts of the set where it is not made yet."""
    problems, _, distiller = name.partition("-")
    rollouts, hek = out / "rollouts" / problems, out / "heks" / name
    if not (rollouts / "summary.json").is_file():
        files = ["--questions", str(out / "data" / problems / "train.jsonl"), "--temperature", "0.7"]
        hiexp("rollout", *files, *options, "--resume", "--out", str(rollouts))
    if not (hek / "CURRENT").is_file():
        made_of = ["--domain", "maths", "--trajectories", str(rollouts / "trajectories.jsonl"), "--encoder", str(fetch("minilm"))]
        by = RULES if distiller == RULES else f"vllm-local:{model}"
        hiexp("build", *made_of, "--distiller", by, "--resume", "--out", str(hek))
    return hek


def write(machine: dict[str, Any], out: Path, done: list[tuple[Played, Path]]) -> None:
    """Write a table for each set, and the rows."""
    tables, rows, text = {}, [], ["# Own experience in mathematics, without training", "", *_machine.as_lines(machine), ""]
    for file in sorted((out / "rollouts").glob("*/summary.json")):
        summary = json.loads(file.read_text(encoding="utf-8"))
        text += [f"- {file.parent.name}: a HEK of {summary['episodes']} rollouts, {summary['correct']:.2f} of them right"]
    for problems in SETS:
        found, seconds, last = list[dict[str, Any]](), dict[str, float](), dict[str, Any]()
        for played, folder in done:
            if played.problems != problems:
                continue
            last = json.loads((folder / TABLE_JSON).read_text(encoding="utf-8"))
            called = {line["arm"]: played.name if line["arm"] == "full" else line["arm"] for line in last["arms"]}
            seconds |= {called[line["arm"]]: line["seconds"] for line in last["arms"]}
            for _, row in read_jsonl(folder / ROWS, "rows"):
                row.pop("question", None)  # of a data set that is not ours to publish; the id tells which
                found.append({**row, "arm": called[row["arm"]]})
        if found:
            lines = [{**line, "seconds": seconds[line["arm"]]} for line in table_of(found)]
            pairs = [pair for pair in pairs_of(found) if pair["against"] in (BASE, "own")]
            tables[problems] = {**last, "arms": lines, "pairs": pairs}
            rows += [{**row, "problems": problems} for row in found]
            text += ["", f"## {problems}", "", as_markdown(tables[problems])]
    publish_rows(NAME, {"machine": machine, "tables": tables}, "\n".join(text), rows)


if __name__ == "__main__":
    main()
