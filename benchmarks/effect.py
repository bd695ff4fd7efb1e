"""Does experience help a policy that is not trained on it? Real questions, a HEK of its own rollouts, and arms to compare with.

    python -m recipes.demo_data qwen-1.5b minilm
    python -m benchmarks.effect --data DIR --set hotpotqa --model qwen-1.5b --out outputs/effect

Rolls the policy out on questions 1 to 150 of the set, builds a HEK from these rollouts (distilled by the policy itself, or
`--distiller rules`), and evaluates 151 to 300, greedily and at temperature 1: no experience, all of it, random and shuffled entries, and
with `--other-set` the HEK of another set, with `--paper` the paper's way. Each step is a `hiexp` command and is resumed where it stopped;
two hours a set on 2 cores. `--data` holds questions.jsonl (id, dataset, question, answer) and corpus.jsonl.gz. Writes
results/effect_SET_MODEL_plans.{json,md} and the rows beside them; results without `_plans` are of three or five entries of clusters
(2026-11-22).
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import _machine
from benchmarks._results import drawn, publish_rows, same_settings
from hiexp_verl.evaluate.plan import ROWS, TABLE_JSON
from hiexp_verl.evaluate.tables import as_markdown, pairs_of, table_of
from hiexp_verl.io.datasets import read_jsonl
from hiexp_verl.io.files import cache_dir, write_jsonl
from hiexp_verl.rollout.rollout import TRAJECTORIES

INSTRUCTIONS = Path(__file__).with_name("effect_instructions.txt")  # a model that was not trained to search needs an example
ARMS = "none,full,random,shuffled"
OTHER, PAPERS_WAY = "full, of another set", "full, the paper's way"  # arms that are evaluated apart
FOLDERS = {"full": "", OTHER: "-other", PAPERS_WAY: "-paper"}
PAPER = ("prompt.top_k=5", "prompt.match=question", "prompt.instantiate=false")
GREEDY, SAMPLED = "Greedy", "Temperature 1"  # tables of the results
LEARNT_FROM, EVALUATED = slice(0, 150), slice(150, 300)


def main() -> None:
    """Run what is not done yet, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of questions.jsonl and corpus.jsonl.gz")
    parser.add_argument("--set", default="hotpotqa", help="`dataset` of the questions (default hotpotqa)")
    parser.add_argument("--model", default="qwen-1.5b", help="an asset's name, or a model directory (default qwen-1.5b)")
    parser.add_argument("--distiller", help="as of `hiexp build` (default: the policy itself)")
    parser.add_argument("--k", type=int, default=4, help="rollouts per question (default 4)")
    parser.add_argument("--temperature", default="0.7", help="of the rollouts (default 0.7)")
    parser.add_argument("--arms", default=ARMS, help=f"(default {ARMS})")
    parser.add_argument("--samples", type=int, default=2, help="of each question and arm at temperature 1 (default 2); 0: greedy alone")
    parser.add_argument("--other-set", help="play with the HEK of this set, too: is it these questions' experience, or any?")
    parser.add_argument("--tool-match", choices=("query", "kind"), default="query", help="as hiexp.tool.match (default query)")
    parser.add_argument("--paper", action="store_true", help="play with five entries by the whole question, not instantiated, too")
    parser.add_argument("--batch-size", type=int, default=64, help="episodes at a time (default 64)")
    parser.add_argument("--name", help="of the results (default effect_SET_MODEL_plans)")
    parser.add_argument("--out", type=Path, default=Path("outputs/effect"))
    a = parser.parse_args()
    model = a.model if Path(a.model).is_dir() else str(cache_dir() / a.model)
    distiller = a.distiller or f"vllm-local:{model}"
    called = {name: f"{name}_{Path(model).name}" for name in (a.set, a.other_set) if name}
    out, common = a.out / called[a.set], played_on(a.data, model, a.batch_size)
    heks: dict[str, Path] = {}
    for name in called:
        folder = a.out / called[name]
        made_with = {"k": a.k, "temperature": a.temperature, "distiller": distiller.partition(":")[0], "tool_match": a.tool_match}
        same_settings(folder, made_with)
        _machine.facts_when_begun(folder)
        split(a.data / "questions.jsonl", name, folder)
        heks[name] = built(folder, distiller, [*common, "--k", str(a.k), "--temperature", a.temperature])
    for part, sampling in parts(a.samples).items():
        played = ["--questions", str(out / "val.jsonl"), *common, *sampling, "--set", f"tool.match={a.tool_match}"]
        hiexp("eval", *played, "--hek", str(heks[a.set]), "--arms", a.arms, "--out", str(folder_of(out, part)))
        if a.other_set:
            hiexp("eval", *played, "--hek", str(heks[a.other_set]), "--arms", "full", "--out", str(folder_of(out, part, OTHER)))
        if a.paper:
            as_paper = ["--arms", "full", "--set", *PAPER, "--out", str(folder_of(out, part, PAPERS_WAY))]
            hiexp("eval", *played, "--hek", str(heks[a.set]), *as_paper)
        write(a.name or f"effect_{called[a.set]}_plans", distiller.partition(":")[0], out)


def played_on(data: Path, model: str, batch_size: int) -> list[str]:
    """Return the options of every rollout and evaluation; --top-k and --max-words as in the results of 2026-11-22."""
    common = ["--corpus", str(data / "corpus.jsonl.gz"), "--model", model, "--instructions", str(INSTRUCTIONS)]
    return [*common, "--top-k", "3", "--max-words", "60", "--batch-size", str(batch_size), "--resume"]


def split(path: Path, dataset: str, out: Path) -> None:
    """Write the questions to learn from, learn.jsonl, and those to evaluate, val.jsonl."""
    rows = [row for _, row in read_jsonl(path, "questions") if row["dataset"] == dataset]
    if len(rows) < EVALUATED.stop:
        raise SystemExit(f"{path} has {len(rows)} questions of {dataset!r}; {EVALUATED.stop} are needed")
    for file, part in (("learn", LEARNT_FROM), ("val", EVALUATED)):
        write_jsonl(out / f"{file}.jsonl", rows[part])


def built(out: Path, distiller: str, options: list[str]) -> Path:
    """Return the HEK of a set, made of rollouts where it is not made yet."""
    rollouts, hek = out / "rollouts", out / "hek"
    if not (rollouts / "summary.json").is_file():
        hiexp("rollout", "--questions", str(out / "learn.jsonl"), *options, "--out", str(rollouts))
    return distilled(rollouts / TRAJECTORIES, hek, distiller)


def distilled(trajectories: Path, hek: Path, distiller: str) -> Path:
    """Return the HEK of these trajectories, built where it is not built yet."""
    if not (hek / "CURRENT").is_file():
        made_of = ["--trajectories", str(trajectories), "--encoder", str(cache_dir() / "minilm")]
        hiexp("build", *made_of, "--distiller", distiller, "--out", str(hek), "--resume")
    return hek


def parts(samples: int) -> dict[str, list[str]]:
    """Return the tables of the results, and how each is sampled."""
    seeds = list(map(str, range(samples)))
    sampled = {SAMPLED: ["--temperature", "1", "--seed", *seeds, "--alone", "0"]} if samples else {}
    return {GREEDY: ["--temperature", "0"], **sampled}


def folder_of(out: Path, part: str, full: str = "full") -> Path:
    """Return where an evaluation lies; `full`: what its arm `full` is called."""
    return out / f"eval-{'greedy' if part == GREEDY else 'sampled'}{FOLDERS[full]}"


def hiexp(*arguments: str) -> None:
    """Run a command of ours; its failure ends the benchmark."""
    print("hiexp " + " ".join(arguments), flush=True)
    subprocess.run([sys.executable, "-m", "hiexp_verl.cli", *arguments], check=True)


def write(name: str, distiller: str, out: Path) -> None:
    """Write what was measured so far: a table for each temperature, raw rows, what the HEK was made of."""
    machine = _machine.facts_when_begun(out)
    rollouts = json.loads((out / "rollouts" / "summary.json").read_text(encoding="utf-8"))
    lines = [f"# Experience without training: {name.removeprefix('effect_')}", "", *_machine.as_lines_when_written(machine)]
    made_of = f"HEK of {rollouts['episodes']} rollouts, {rollouts['k']} a question, {rollouts['correct']:.2f} of them right"
    lines += ["", f"{made_of}; distiller: {distiller}."]
    tables, rows = {}, []
    for part in (GREEDY, SAMPLED):
        if (folder_of(out, part) / TABLE_JSON).is_file():
            tables[part], found = all_arms(out, part)
            rows += [{**row, "part": part} for row in found]
            lines += ["", f"## {part}", "", as_markdown(tables[part])]
    found = {"machine": machine, "rollouts": rollouts, "distiller": distiller, "tables": tables}
    publish_rows(name, found, "\n".join([*lines, "", *drawn(name, tables)]), rows)


def all_arms(out: Path, part: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return table and rows of a part; arms that were evaluated apart have names of their own."""
    found, rows, seconds = [], [], {}
    for full in FOLDERS:
        folder = folder_of(out, part, full)
        if (folder / TABLE_JSON).is_file():
            found += [json.loads((folder / TABLE_JSON).read_text(encoding="utf-8"))]
            names = {"full": full}
            seconds |= {names.get(line["arm"], line["arm"]): line["seconds"] for line in found[-1]["arms"]}
            rows += [{**row, "arm": names.get(row["arm"], row["arm"])} for _, row in read_jsonl(folder / ROWS, "rows")]
    for row in rows:
        row.pop("question", None)  # of a data set that is not ours to publish; the id tells which
    lines = [{**line, "seconds": seconds[line["arm"]]} for line in table_of(rows)]
    took = round(sum(table["seconds"] for table in found), 1)
    return {**found[0], "seconds": took, "arms": lines, "pairs": pairs_of(rows)}, rows


if __name__ == "__main__":
    main()
