"""Does experience help a policy that is not trained on it? Real questions, a HEK of its own rollouts, and arms to compare with.

    python -m recipes.demo_data qwen-1.5b minilm
    python -m benchmarks.effect --data DIR --set hotpotqa --model qwen-1.5b --out outputs/effect

Rolls the policy out on questions 1 to 150 of the set, builds a HEK from these rollouts (distilled by the policy itself, or
`--distiller rules`), and evaluates 151 to 300: no experience, all of it, its parts, random and shuffled entries. Each step is a
`hiexp` command and is resumed where it stopped; hours on 2 cores. `--data` holds questions.jsonl (id, dataset, question,
answer) and corpus.jsonl.gz. Writes results/effect_SET_MODEL.{json,md} and the rows beside them.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import _machine
from benchmarks._results import publish_rows, same_settings
from hiexp_verl.evaluate.plan import ROWS, TABLE_JSON
from hiexp_verl.evaluate.tables import BASE, as_markdown, pairs_of, table_of
from hiexp_verl.io.datasets import read_jsonl
from hiexp_verl.io.files import cache_dir, write_jsonl

INSTRUCTIONS = Path(__file__).with_name("effect_instructions.txt")  # a model that was not trained to search needs an example
ARMS = "none,full,random,shuffled,tool,prompt"
AFTER, BEFORE = "tool.position=after", "tool.position=before"  # after: as the results were made, and as the paper says it
FURTHER = {"E1 before": "eval-before", "of another set": "eval-other"}  # what their arms are called, where they lie
LEARNT_FROM, EVALUATED = slice(0, 150), slice(150, 300)


def main() -> None:
    """Run what is not done yet, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of questions.jsonl and corpus.jsonl.gz")
    parser.add_argument("--set", default="hotpotqa", help="`dataset` of the questions (default hotpotqa)")
    parser.add_argument("--model", default="qwen-1.5b", help="an asset's name, or a model directory (default qwen-1.5b)")
    parser.add_argument("--distiller", help="as of `hiexp build` (default: the policy itself)")
    parser.add_argument("--k", type=int, default=4, help="rollouts per question (default 4)")
    parser.add_argument("--temperature", default="0.7", help="of the rollouts (default 0.7; the evaluation is greedy)")
    parser.add_argument("--arms", default=ARMS, help=f"(default {ARMS})")
    parser.add_argument("--before", action="store_true", help="full and tool also with E1 before the documents")
    parser.add_argument("--other-set", help="play with the HEK of this set, too: is it these questions' experience, or any?")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("outputs/effect"))
    arguments = parser.parse_args()
    model = arguments.model if Path(arguments.model).is_dir() else str(cache_dir() / arguments.model)
    distiller = arguments.distiller or f"vllm-local:{model}"
    out: Path = arguments.out / f"{arguments.set}_{Path(model).name}"
    same_settings(out, {"k": arguments.k, "temperature": arguments.temperature, "distiller": distiller.partition(":")[0]})
    machine = _machine.facts_when_begun(out)
    questions = split(arguments.data / "questions.jsonl", arguments.set, out)
    common = ["--corpus", str(arguments.data / "corpus.jsonl.gz"), "--model", model, "--instructions", str(INSTRUCTIONS), "--resume"]
    common += ["--top-k", "3", "--max-words", "60"]  # as the published rows
    rollouts, hek = out / "rollouts", out / "hek"
    if not (rollouts / "summary.json").is_file():
        sampled = ["--k", str(arguments.k), "--temperature", arguments.temperature]
        hiexp("rollout", "--questions", str(questions[0]), *common, *sampled, "--out", str(rollouts))
    if not (hek / "CURRENT").is_file():
        made_of = ["--trajectories", str(rollouts / "trajectories.jsonl"), "--encoder", str(cache_dir() / "minilm")]
        hiexp("build", *made_of, "--distiller", distiller, "--out", str(hek), "--resume")
    played = ["--questions", str(questions[1]), *common, "--batch-size", str(arguments.batch_size)]
    hiexp("eval", *played, "--hek", str(hek), "--arms", arguments.arms, "--set", AFTER, "--out", str(out / "eval"))
    if arguments.before:
        hiexp("eval", *played, "--hek", str(hek), "--arms", "full,tool", "--set", BEFORE, "--out", str(out / FURTHER["E1 before"]))
    if arguments.other_set:
        others = arguments.out / f"{arguments.other_set}_{Path(model).name}" / "hek"
        hiexp("eval", *played, "--hek", str(others), "--arms", "full", "--set", AFTER, "--out", str(out / FURTHER["of another set"]))
    write(machine, f"{arguments.set}_{Path(model).name}", distiller.partition(":")[0], out)


def split(path: Path, dataset: str, out: Path) -> tuple[Path, Path]:
    """Write the questions to learn from and those to evaluate; return the files."""
    rows = [row for _, row in read_jsonl(path, "questions") if row["dataset"] == dataset]
    files = (out / "learn.jsonl", out / "val.jsonl")
    for file, part in zip(files, (LEARNT_FROM, EVALUATED), strict=True):
        write_jsonl(file, rows[part])
    return files


def hiexp(*arguments: str) -> None:
    """Run a command of ours; its failure ends the benchmark."""
    print("hiexp " + " ".join(arguments), flush=True)
    subprocess.run([sys.executable, "-m", "hiexp_verl.cli", *arguments], check=True)


def write(machine: dict[str, Any], name: str, distiller: str, out: Path) -> None:
    """Write what was measured: table, raw rows, what the HEK was made of."""
    table, rows = all_arms(out)
    rollouts = json.loads((out / "rollouts" / "summary.json").read_text(encoding="utf-8"))
    lines = [f"# Experience without training: {name}", "", *_machine.as_lines(machine)]
    now = _machine.facts()["commit"]
    lines += [f"- begun at that commit, written at {now}"] if now != machine["commit"] else []
    lines += [""]
    made_of = f"HEK of {rollouts['episodes']} rollouts, {rollouts['k']} a question, {rollouts['correct']:.2f} of them right"
    lines += [f"{made_of}; distiller: {distiller}.", ""]
    found = {"machine": machine, "rollouts": rollouts, "distiller": distiller, "table": table}
    publish_rows(f"effect_{name}", found, "\n".join(lines) + "\n" + as_markdown(table), rows)


def all_arms(out: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return table and rows; an arm of another evaluation stands in them as `hek, E1 before`."""
    folders = {"": out / "eval"} | {f", {name}": out / folder for name, folder in FURTHER.items()}
    tables = {name: json.loads((folder / TABLE_JSON).read_text(encoding="utf-8")) for name, folder in folders.items() if folder.is_dir()}
    rows = [{**row, "arm": row["arm"] + name} for name in tables for _, row in read_jsonl(folders[name] / ROWS, "rows")]
    for row in rows:
        row.pop("question", None)  # of a data set that is not ours to publish; the id tells which
    seconds = {line["arm"] + name: line["seconds"] for name, table in tables.items() for line in table["arms"]}
    lines = [{**line, "seconds": seconds[line["arm"]]} for line in table_of(rows)]
    pairs = [p for p in pairs_of(rows) if "," not in p["arm"] or p["against"] in (BASE, p["arm"].partition(",")[0])]
    took = round(sum(table["seconds"] for table in tables.values()), 1)
    return {**tables[""], "seconds": took, "arms": lines, "pairs": pairs}, rows


if __name__ == "__main__":
    main()
