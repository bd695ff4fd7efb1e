"""Controls side by side: the same questions, seeds and budgets, with experience changed in one respect at a time.

Each control plays every question k times with the same policy (as `hiexp rollout --control` does); with --train each gets a
policy of its own first, trained with that control. `none` is always among them: the table compares the others with it.
The defaults take everything from what `make demo` left. A control that is done is not run again.
"""

import argparse
import json
import shutil
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "cpu_demo"))  # the training and the settings are those of the demo

from sources import check_settings, chosen_controls, find_sources, pick_questions
from stages import HERE as DEMO_RECIPE
from stages import TRAIN, episode_settings
from table import BASELINE, as_markdown, row_of
from training import run_overrides, train

from hiexp_verl.config import CONTROLS, SearchConfig, StartConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.locate import open_encoder
from hiexp_verl.hek.store import HEK
from hiexp_verl.jsonl import atomic_writer, read_trajectories
from hiexp_verl.llm import ChatClient, open_model
from hiexp_verl.policy_tokenizer import PolicyTokenizer
from hiexp_verl.run.command import open_experience
from hiexp_verl.run.control import shows
from hiexp_verl.run.rollout import SUMMARY, TRAJECTORIES, rollout
from hiexp_verl.search import open_engine

EPILOG = f"""controls (the head of hiexp_verl/run/control.py says what each is):
  {", ".join(CONTROLS)}

examples:
  python recipes/controls/run.py                                      after `make demo`
  python recipes/controls/run.py --controls full,random,e1            e1 is played, the others are there already
  python recipes/controls/run.py --train 3 --controls full,random --out outputs/controls_trained
  python recipes/controls/run.py --model DIR --hek DIR --questions a.jsonl b.jsonl --corpus corpus.jsonl --out outputs/mine
"""


def main() -> int:
    """Play the controls and write the table; 0 when it is there."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped with it
    try:
        controls = Controls(parser().parse_args())
        controls.play_all()
        print(f"\n{controls.write_table()}\n{controls.out / 'table.md'}")
    except HiExpError as error:
        print(f"controls: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("controls: interrupted; the same command goes on where this one stopped", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=formatter, allow_abbrev=False)
    chosen = "full,random,shuffled,with-own-question"
    parser.add_argument("--controls", default=chosen, help=f"comma-separated (default {chosen}); {BASELINE} is always among them")
    parser.add_argument("--from", dest="demo", type=Path, default=Path("outputs/demo"), help="what `make demo` left (default outputs/demo)")
    parser.add_argument("--out", type=Path, default=Path("outputs/controls"), help="episodes and table (default outputs/controls)")
    parser.add_argument("--model", type=Path, help="policy (default: the demo's after GRPO; with --train the warm-started one)")
    parser.add_argument("--hek", type=Path, help="(default: the demo's)")
    parser.add_argument("--questions", type=Path, nargs="+", help="JSONL files (default: the demo's for training and for validation)")
    parser.add_argument("--corpus", type=Path, help="JSONL of id, title, text (default: the demo's)")
    parser.add_argument("--limit", type=int, default=12, help="questions of each file (default 12)")
    parser.add_argument("--k", type=int, default=2, help="episodes per question and control (default 2)")
    parser.add_argument("--temperature", type=float, default=1.0, help="(default 1.0)")
    parser.add_argument("--seed", type=int, default=0, help="the same for all controls (default 0)")
    parser.add_argument("--train", type=int, default=0, metavar="STEPS", help="train a policy per control first (default 0: no training)")
    parser.add_argument("--algorithm", default="grpo", choices=("grpo", "gspo"), help="of --train (default grpo)")
    return parser


class Controls:
    """One run of this recipe: what is played with, checked before a model is served."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.controls = chosen_controls(arguments.controls)
        self.sources = find_sources(arguments)
        self.questions = pick_questions(self.sources.questions, arguments.limit)
        self.hek = HEK.load(self.sources.hek)
        self.out: Path = arguments.out.resolve()
        self.settings = check_settings(self.out / "settings.json", arguments, self.sources, self.questions, self.hek)

    def play_all(self) -> None:
        """Play the controls that are not done."""
        todo = [control for control in self.controls if not (self.out / control / SUMMARY).is_file()]
        done = len(self.controls) - len(todo)
        print(f"{len(self.questions)} questions x {self.arguments.k}: {', '.join(self.controls)}; done earlier: {done}", flush=True)
        if self.arguments.train:
            for control in todo:
                policy = self.trained(control)
                with open_model(str(policy)) as client:
                    self.play(control, policy, client)
        elif todo:
            with open_model(str(self.sources.policy)) as client:
                for control in todo:
                    self.play(control, self.sources.policy, client)

    def play(self, control: str, policy: Path, client: ChatClient) -> None:
        """Play every question k times; an interrupted run goes on."""
        experience = None
        if shows(control, validating=True):
            encoder = open_encoder(self.hek, self.sources.hek)
            start = StartConfig(**TRAIN["hiexp"]["start"])
            experience = open_experience(self.hek, encoder, PolicyTokenizer(policy), start, control)
        settings = episode_settings(self.arguments.temperature, self.arguments.seed)
        search = open_engine(SearchConfig(corpus=str(self.sources.corpus)))
        out, k = self.out / control, self.arguments.k
        rollout(self.questions, client, search, settings, k, out, resume=True, experience=experience, progress=control)

    def trained(self, control: str) -> Path:
        """Return the policy trained with this control: the same start, data order, seed and steps for all."""
        steps, folder = self.arguments.train, self.out / control / "train"
        done = folder / "done.json"
        if not done.is_file():
            print(f"\n== {control}: {steps} steps of {self.arguments.algorithm}", flush=True)
            shutil.rmtree(folder, ignore_errors=True)  # half a training is none
            folder.mkdir(parents=True)
            of, seed = self.sources, self.arguments.seed
            questions = (of.questions[0], of.questions[-1])
            overrides = run_overrides(folder, control, of.hek, of.corpus, questions, of.policy, seed, steps)
            result = train(DEMO_RECIPE, self.arguments.algorithm, overrides, folder, steps)
            with atomic_writer(done) as file:
                file.write(json.dumps(result, indent=1) + "\n")
        return folder / "checkpoints" / f"global_step_{steps}" / "actor" / "huggingface"

    def write_table(self) -> str:
        """Write table.json and table.md; return the latter."""
        episodes = {control: list(read_trajectories(self.out / control / TRAJECTORIES)) for control in self.controls}
        rows = [row_of(control, episodes[control], episodes[BASELINE], self.hek) for control in self.controls]
        with atomic_writer(self.out / "table.json") as file:
            file.write(json.dumps({"date": time.strftime("%Y-%m-%d"), "settings": self.settings, "arms": rows}, indent=1) + "\n")
        with atomic_writer(self.out / "table.md") as file:
            file.write(as_markdown(rows))
        return as_markdown(rows)


if __name__ == "__main__":
    sys.exit(main())
