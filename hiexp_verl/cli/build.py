"""`hiexp build`: trajectories to a HEK."""

import argparse
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from hiexp_verl.cli.options import DOMAIN_HELP, MAX_MODEL_LEN_HELP, PRECONDITIONS_HELP, add_verb, say
from hiexp_verl.distil.dry_run import dry_run
from hiexp_verl.distil.replies import Price
from hiexp_verl.distil.spec import BuildSpec, run_build


def add(verbs: Any) -> None:
    """Add the verb."""
    epilog = (
        "distillers:  rules             templates over the diagnosis, no model\n"
        "             vllm:DIR          a model directory, served by vLLM here (the policy itself, or a teacher)\n"
        "             vllm-local:DIR    the same without a server: vLLM's offline generation\n"
        "             openai:URL#MODEL  any OpenAI-compatible server\n"
        "             files:DIR         answers computed before\n\n"
        "example: hiexp build --trajectories outputs/rollouts/trajectories.jsonl --distiller rules --encoder DIR --out hek\n\n"
        "before paying for answers, print the prompts (the encoder runs, for the clusters):\n"
        "         hiexp build ... --distiller openai:https://HOST/v1#MODEL --dry-run --show 1 --price 0.15 0.60\n\n"
        "After a kill, the same command with --resume continues and gives the same HEK; without it, the build refuses to\n"
        "throw the stored answers away: delete OUT/answers.jsonl to start over. OUT/run.json lists what the last build used,\n"
        "left out, and took in calls, tokens and seconds."
    )
    parser = add_verb(verbs, "build", run, "Distil trajectories into a three-level HEK.", epilog)
    parser.add_argument("--trajectories", type=Path, nargs="+", required=True, metavar="FILE", help="of `hiexp rollout` or `hiexp import`")
    parser.add_argument("--domain", help=f"of the trajectories: {DOMAIN_HELP} (default search)")
    parser.add_argument("--other-domain", action="store_true", help="read trajectories of another domain as those of this one")
    parser.add_argument("--distiller", metavar="KIND:PLACE", help="see below (default rules)")
    parser.add_argument("--encoder", required=True, help="sentence-transformers directory or name; hash:256 for a dry run")
    parser.add_argument("--out", type=Path, required=True, metavar="HEK", help="directory; each build adds an immutable version")
    parser.add_argument("--success-at", type=float, metavar="SCORE", help="score of a success (default: the trajectory's own mark)")
    parser.add_argument("--single-sided", action="store_true", help="reflect on questions without a success, too")
    cases = "E1 of one question, with different findings (default %(default)s)"
    parser.add_argument("--cases-per-question", type=int, metavar="N", help=cases)
    plans = (
        "kind (default): an E2 per kind of question, with the searches that were right most often; case: an E2 per cluster of E1 (paper)"
    )
    parser.add_argument("--plans", choices=("case", "kind"), help=plans)
    support = "least number of questions that a plan has solved (default %(default)s)"
    parser.add_argument("--plan-support", type=int, metavar="N", help=support)
    parser.add_argument("--linkage", choices=("ward", "average"), help="of the clusters (default %(default)s)")
    parser.add_argument("--cluster-size", type=float, help="E1 under an E2, on average (default %(default)g)")
    parser.add_argument("--calibrated", type=Path, metavar="HEK", help="cluster at the heights of this HEK (see hiexp calibrate)")
    parser.add_argument("--confirm", action="store_true", help="ask the distiller of each member whether its summary holds for it")
    parser.add_argument("--preconditions", action="store_true", help=PRECONDITIONS_HELP)
    parser.add_argument("--ray", nargs="?", const="auto", metavar="ADDRESS", help="diagnose and encode on a running Ray cluster")
    parser.add_argument("--resume", action="store_true", help="use the answers that an interrupted build left")
    parser.add_argument("--dry-run", action="store_true", help="show prompts and the expected calls; ask no model, write nothing")
    parser.add_argument("--show", type=int, default=3, metavar="N", help="prompts that --dry-run shows in full (default 3)")
    parser.add_argument("--price", type=float, nargs=2, metavar=("IN", "OUT"), help="cost of a million prompt and completion tokens")
    concurrency = "requests in flight (default 256 with vllm:DIR, 32 with it on a CPU, 16 with openai:)"
    parser.add_argument("--concurrency", type=int, metavar="N", help=concurrency)
    parser.add_argument("--max-model-len", type=int, help=MAX_MODEL_LEN_HELP)
    parser.set_defaults(**{each.name: each.default for each in fields(BuildSpec) if each.default is not MISSING})


def run(arguments: argparse.Namespace) -> int:
    """Build and print what was used and left out."""
    spec = spec_of(arguments)
    say(dry_run(spec, arguments.show) if arguments.dry_run else run_build(spec).summary(spec.price))
    return 0


def spec_of(arguments: argparse.Namespace) -> BuildSpec:
    """Return what the arguments name.

    Raises:
        HiExpError: see `BuildSpec`.
    """
    values = {each.name: getattr(arguments, each.name) for each in fields(BuildSpec) if each.name in arguments}
    return BuildSpec(**values | {"price": Price(*arguments.price) if arguments.price else None})
