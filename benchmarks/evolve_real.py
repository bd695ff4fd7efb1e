"""Real questions: does a bank that tests its entries beat one that is built once from as many rollouts?

    python -m benchmarks.effect --data DIR --set 2wiki --samples 0                  # rollouts, and the model without experience
    python -m benchmarks.evolve_real --data DIR --set 2wiki

A static HEK is made of the rollouts of benchmarks/effect, 150 questions with four each. A first HEK is made of a third of them, and
`hiexp evolve` goes on from it with the other questions and as many rollouts as the static one had of them. All are played greedily on the
same held-out questions, E1 by the kind of question. `rules` distil: a model as distiller beside the one that plays takes twice the
memory. About half an hour on 2 cores, resumed where it stopped. Writes results/evolve_SET_MODEL.{json,md} and the rows.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks import _machine, effect
from benchmarks._results import publish_rows, same_settings
from hiexp_verl.evaluate.plan import ROWS, TABLE_JSON
from hiexp_verl.evaluate.tables import BASE, as_markdown, pairs_of, table_of
from hiexp_verl.evolve.table import TABLE_MD
from hiexp_verl.io.datasets import read_jsonl
from hiexp_verl.io.files import cache_dir, write_jsonl
from hiexp_verl.io.manifest import MANIFEST, read_manifest
from hiexp_verl.rollout.rollout import TRAJECTORIES

START = 50  # questions of the first HEK
GREEDY = ("--temperature", "0", "--alone", "0")
KIND = ("--set", "tool.match=kind")  # without it nothing is gained here


def main() -> None:
    """Run what is not done yet, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="as of benchmarks.effect")
    parser.add_argument("--set", default="2wiki", help="`dataset` of the questions (default 2wiki)")
    parser.add_argument("--model", default="qwen-1.5b", help="an asset's name, or a model directory (default qwen-1.5b)")
    parser.add_argument("--effect", type=Path, default=Path("outputs/effect"), help="where benchmarks.effect left the static HEK")
    parser.add_argument("--rounds", type=int, default=3, help="(default 3)")
    parser.add_argument("--min-groups", type=int, default=25, help="of the gate (default 25)")
    parser.add_argument("--batch-size", type=int, default=64, help="episodes at a time (default 64)")
    parser.add_argument("--out", type=Path, default=Path("outputs/evolve_real"))
    a = parser.parse_args()
    model = a.model if Path(a.model).is_dir() else str(cache_dir() / a.model)
    called = f"{a.set}_{Path(model).name}"
    begun, out = a.effect / called, a.out / called
    if not (effect.folder_of(begun, effect.GREEDY) / TABLE_JSON).is_file():
        raise SystemExit(f"{begun} has no evaluation; run first: python -m benchmarks.effect --set {a.set} --out {a.effect}")
    same_settings(out, {"rounds": a.rounds, "min_groups": a.min_groups, "effect": begun.name})
    machine = _machine.facts_when_begun(out)
    questions, rollouts = rows_of(begun / "learn.jsonl"), rows_of(begun / "rollouts" / TRAJECTORIES)
    first = {row["id"] for row in questions[:START]}
    of_first = [row for row in rollouts if row["question_id"] in first]
    write_jsonl(out / TRAJECTORIES, of_first)
    write_jsonl(out / "others.jsonl", questions[START:])
    made_of = {"static": begun / "rollouts" / TRAJECTORIES, "start": out / TRAJECTORIES}
    heks = {name: effect.distilled(path, out / name, "rules") for name, path in made_of.items()}
    heks["evolved"], common = out / "evolution" / "hek", effect.played_on(a.data, model, a.batch_size)
    evolution = out / "evolution"
    if not (evolution / MANIFEST).is_file() or read_manifest(evolution).finished is None:
        gate = ["--rounds", str(a.rounds), "--budget-rollouts", str(len(rollouts) - len(of_first)), "--min-groups", str(a.min_groups)]
        files = ["--questions", str(out / "others.jsonl"), "--hek", str(heks["start"]), "--out", str(evolution)]
        effect.hiexp("evolve", *files, *common, *gate, *KIND, "--temperature", "0.7")
    for name, hek in heks.items():
        played = ["--questions", str(begun / "val.jsonl"), *common, *GREEDY, *KIND, "--hek", str(hek), "--arms", "full"]
        effect.hiexp("eval", *played, "--out", str(out / "eval" / name))
    write(machine, called, out, begun, len(rollouts))


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file."""
    return [row for _, row in read_jsonl(path, "rows")]


def write(machine: dict[str, Any], called: str, out: Path, begun: Path, rollouts: int) -> None:
    """Write the table, the rounds and the rows."""
    folders = {BASE: effect.folder_of(begun, effect.GREEDY), **{name: out / "eval" / name for name in ("start", "static", "evolved")}}
    rows, seconds, tables = [], dict[str, float](), {}
    for name, folder in folders.items():
        tables[name] = json.loads((folder / TABLE_JSON).read_text(encoding="utf-8"))
        arm = BASE if name == BASE else "full"
        for row in rows_of(folder / ROWS):
            if row["arm"] == arm:
                row.pop("question", None)  # of a data set that is not ours to publish; the id tells which
                rows.append({**row, "arm": name})
        seconds[name] = next(line["seconds"] for line in tables[name]["arms"] if line["arm"] == arm)
    lines = [{**line, "seconds": seconds[line["arm"]]} for line in table_of(rows)]
    pairs = [pair for pair in pairs_of(rows) if pair["against"] in (BASE, "static", "start")]
    table = {**tables["static"], "arms": lines, "pairs": pairs}
    evolution = json.loads((out / "evolution" / "table.json").read_text(encoding="utf-8"))
    spent = sum(each["rollouts"] for each in evolution["rounds"])
    text = [f"# Real questions: a bank that tests its entries beside one that is built once: {called}", "", *_machine.as_lines(machine), ""]
    text += [f"Static: {rollouts} rollouts. Evolved: {4 * START} for the first HEK, {spent} of the evolution.", ""]
    text += [as_markdown(table), "", "## Rounds", "", (out / "evolution" / TABLE_MD).read_text(encoding="utf-8"), ""]
    publish_rows(f"evolve_{called}", {"machine": machine, "rounds": evolution["rounds"], "table": table}, "\n".join(text), rows)


if __name__ == "__main__":
    main()
