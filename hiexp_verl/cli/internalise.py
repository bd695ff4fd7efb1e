"""`hiexp distil-pairs`: what a policy can learn from its own rollouts."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hiexp_verl.cli.options import JSON_HELP, add_verb, print_result
from hiexp_verl.errors import HiExpError
from hiexp_verl.internalise.pairs import REASONS, pairs_of, write_pairs
from hiexp_verl.io.datasets import read_trajectories
from hiexp_verl.io.files import only_one
from hiexp_verl.io.manifest import MANIFEST, Manifest, read_manifest, timed
from hiexp_verl.report.html import plural
from hiexp_verl.types import Trajectory

_EPILOG = """\
For each question with a right rollout: the reference is the right one with the fewest searches, the student the rollout that differs
most from it, a wrong one where there is one. A student was shown no experience; a reference may have been. Rollouts of validation are
left out. One line a pair, both rollouts whole, with the identity of the policy that played them, where `hiexp rollout` noted it;
`hiexp report` of the folder shows them side by side, `hiexp train --distil` learns from them.

example: hiexp rollout --questions train.jsonl --corpus corpus.jsonl --model DIR --k 5 --out outputs/rollouts
         hiexp distil-pairs --trajectories outputs/rollouts/trajectories.jsonl --out outputs/pairs/pairs.jsonl"""


def add(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(verbs, "distil-pairs", run_pairs, "Pair a policy's rollouts for self-distillation (Search-E1).", _EPILOG)
    parser.add_argument("--trajectories", type=Path, nargs="+", required=True, metavar="FILE", help="several rollouts a question")
    parser.add_argument("--most", type=int, metavar="N", help="at most so many pairs, drawn by the ids of their questions")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="pairs as JSON lines; its folder gets a run.json")
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def run_pairs(arguments: argparse.Namespace) -> int:
    """Write the pairs and print the counts."""
    if arguments.most is not None and arguments.most < 1:
        raise HiExpError(f"--most must be at least 1, found {arguments.most}")
    out: Path = arguments.out
    folder = out.parent
    with only_one(folder):
        if (folder / MANIFEST).is_file() and (kind := read_manifest(folder).kind) != "pairs":
            raise HiExpError(f"{folder} holds a run of another kind ({kind}); give --out in a folder of its own")
        spec = {"trajectories": [str(path) for path in arguments.trajectories], "most": arguments.most}
        manifest = Manifest(kind="pairs", spec=spec, results={"pairs": [out.name]})
        with timed(folder, manifest):
            pairs, left_out = pairs_of(_rollouts(arguments.trajectories), arguments.most)
            if not pairs:
                raise HiExpError(f"no question gives a pair ({_listed(left_out)}); roll out more per question, some without experience")
            write_pairs(out, pairs)
        wrong = sum(not pair.student.correct for pair in pairs)
        distance = sum(pair.distance for pair in pairs) / len(pairs)
        counts = {"pairs": len(pairs), "wrong_students": wrong, "distance": round(distance, 4)}
        manifest.finish(folder, **counts, left_out=dict(left_out))
    lines = [f"{plural(len(pairs), 'pair')} in {out}, {wrong} with a wrong student; mean distance {distance:.2f}"]
    lines += [f"{count:6d} {REASONS[reason]} left out" for reason, count in left_out.items() if count]
    print_result(arguments.json, {**counts, "left_out": dict(left_out)}, "\n".join(lines))
    return 0


def _rollouts(files: Sequence[Path]) -> Iterator[Trajectory]:
    """Yield the rollouts, each with the identity of its policy, where the manifest beside its file has it."""
    for path in files:
        policy = ""
        if (path.parent / MANIFEST).is_file():
            policy = str(read_manifest(path.parent).spec.get("policy", ""))
        for t in read_trajectories(path):
            yield replace(t, extra={**t.extra, "policy": policy}) if policy else t


def _listed(left_out: dict[str, int]) -> str:
    return "; ".join(f"{count} {REASONS[reason]}" for reason, count in left_out.items()) or "no rollouts"
