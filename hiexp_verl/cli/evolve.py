"""`hiexp evolve`: a HEK that proves its entries, without training."""

import argparse
from pathlib import Path
from typing import Any, get_args

from hiexp_verl.cli.options import PRECONDITIONS_HELP, QUESTIONS_HELP, add_episode_arguments, add_verb, say
from hiexp_verl.cli.rollout import check_numbers, play_options
from hiexp_verl.config import GateConfig, Rule
from hiexp_verl.distil.pipeline import DistilSettings
from hiexp_verl.evolve.evolve import HEK_FOLDER, evolve
from hiexp_verl.evolve.spec import EvolveSpec
from hiexp_verl.evolve.table import TABLE_MD, as_markdown
from hiexp_verl.ledger.keep import KeepConfig

_EPILOG = """\
A round: a candidate is built from the rollouts so far (new entries come, those that are shown to harm go), then new questions are
played without experience, with the version in use, and with the candidate. The gate looks at --min-groups questions, at twice and
at four times as many:

  strict    accept when the lower bound of the gain is above 0
  ratchet   accept a gain whose lower bound is above -0.01 (default)
  always    accept without a test, for comparison

Of 100 candidates that do nothing strict accepts 5 and ratchet 8; of 100 that gain 0.05, 39 and 52 (simulated at these defaults). With
--min-groups 200 and --k 4 it is 3 and 17, and nearly all: more groups see smaller gains.
What is rejected is not proposed again; an entry that was to leave or to be reworded stays until another version is in use.

With --edits the distiller's model sees each new E1 beside the five nearest: it adds it, rewords one of them by it, suspects one (the
ledger decides), or leaves it out.

--explore asks the questions of thin kinds first: those whose E2 has the fewest questions behind it, and of them those that rollouts
without experience solve now and then. The gain is then that on these questions.

--refine looks at the entries of a candidate for which the gate found no difference. What lost, in the groups that were shown it, by more
than one standard error, is not proposed again; the others are. A model as distiller also rewrites an E1 that lost, by what its own
rollouts did.

--drafts N draws N candidates from the distiller's model and plays each on --screen questions, at most a quarter of the budget that is
left; the one that earns most goes to the gate, which asks other questions.

OUT/hek has every version, OUT/hek/ledger the rollouts (`hiexp ledger OUT/hek`), table.md the rounds with gains and intervals. Measure
the result on other questions: hiexp eval --hek OUT/hek ...

example: hiexp evolve --questions train.jsonl --corpus corpus.jsonl --model DIR --hek hek --budget-rollouts 4000 --out outputs/evolve"""


def add(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(verbs, "evolve", run_evolve, "Let a HEK grow and shed by measured gain, without training.", _EPILOG)
    parser.add_argument("--questions", type=Path, required=True, help=QUESTIONS_HELP)
    parser.add_argument("--limit", type=int, help="only the first N questions")
    add_episode_arguments(parser, temperature=1.0)
    parser.add_argument("--out", type=Path, required=True, help="directory for hek/, rounds/, table.md and table.json")
    parser.add_argument("--rounds", type=int, default=4, help="(default 4)")
    parser.add_argument("--budget-rollouts", type=int, default=4_000, metavar="B", help="episodes of all rounds (default 4000)")
    parser.add_argument("--k", type=int, default=2, help="rollouts of a question with each version (default 2)")
    parser.add_argument("--k-none", type=int, default=2, help="rollouts of a question without experience (default 2)")
    parser.add_argument("--distiller", default="rules", metavar="KIND:PLACE", help="as of hiexp build (default rules)")
    parser.add_argument("--edits", action="store_true", help="let the distiller's model add, reword, suspect or leave out, see above")
    parser.add_argument("--preconditions", action="store_true", help=PRECONDITIONS_HELP)
    parser.add_argument("--explore", action="store_true", help="ask the questions of thin kinds first, see above")
    parser.add_argument("--refine", action="store_true", help="revise a candidate that lost narrowly, see above")
    parser.add_argument("--drafts", type=int, default=1, metavar="N", help="candidates of a round that are screened, see above (default 1)")
    parser.add_argument("--screen", type=int, default=12, metavar="N", help="questions of a screening (default 12)")
    parser.add_argument("--rule", choices=get_args(Rule), default="ratchet", help="of the gate, see above (default ratchet)")
    parser.add_argument("--min-groups", type=int, default=50, metavar="N", help="questions at the first look of the gate (default 50)")
    parser.add_argument("--plan-support", type=int, default=2, metavar="N", help="questions that a plan must have solved (default 2)")
    parser.add_argument("--max-new", type=int, default=64, metavar="N", help="E1 of a candidate at most (default 64)")
    parser.add_argument("--n-min", type=int, default=100, metavar="N", help="exposures before an entry can be retired (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the order of questions and of the sampling (default 0)")


def run_evolve(arguments: argparse.Namespace) -> int:
    """Run the rounds and print the table."""
    rounds = evolve(evolve_spec(arguments))
    say(as_markdown(rounds))
    accepted = sum(each.accepted for each in rounds)
    say(f"\n{accepted} of {len(rounds)} rounds brought a version: {arguments.out / HEK_FOLDER}, {arguments.out / TABLE_MD}")
    return 0


def evolve_spec(arguments: argparse.Namespace) -> EvolveSpec:
    """Return what these arguments ask for. Raises as `play_options`."""
    counts = ("rounds", "budget_rollouts", "k", "k_none", "max_new", "drafts", "screen")
    check_numbers(vars(arguments), "limit", *counts, "min_groups", "plan_support", "n_min")
    own = {name: getattr(arguments, name) for name in (*counts, "questions", "distiller", "edits", "explore", "refine", "seed")}
    return EvolveSpec(
        **play_options(arguments, arguments.seed),
        **own,
        gate=GateConfig(rule=arguments.rule, min_groups=arguments.min_groups),
        keep=KeepConfig(n_min=arguments.n_min),
        build=DistilSettings(plan_support=arguments.plan_support, preconditions=arguments.preconditions),
    )
