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
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "cpu_demo"))  # the training and the settings are those of the demo

from sources import Sources, check_settings, chosen_controls, find_sources, pick_questions
from stages import HERE as DEMO_RECIPE
from stages import TRAIN, episode_settings
from table import BASELINE, as_markdown, row_of
from training import train

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
from hiexp_verl.types import Question

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
    arguments = parser().parse_args()
    try:
        run(arguments)
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


def run(arguments: argparse.Namespace) -> None:
    """Play what is missing, then write table.md and table.json.

    Raises:
        HiExpError: an unknown control, something to play with is missing, or `out` was made with other settings.
    """
    controls = chosen_controls(arguments.controls)
    sources = find_sources(arguments)
    questions = pick_questions(sources.questions, arguments.limit)
    hek = HEK.load(sources.hek)
    out: Path = arguments.out.resolve()
    settings = check_settings(out / "settings.json", arguments, sources, questions, hek)
    todo = [control for control in controls if not (out / control / SUMMARY).is_file()]
    print(f"{len(questions)} questions x {arguments.k}: {', '.join(controls)}; done earlier: {len(controls) - len(todo)}", flush=True)
    with ExitStack() as shared:
        client = None
        for control in todo:
            if arguments.train:
                policy = trained(control, arguments, sources, out / control / "train")
                with open_model(str(policy)) as own:
                    play(control, policy, own, arguments, sources, questions, out / control)
                continue
            client = client or shared.enter_context(open_model(str(sources.policy)))
            play(control, sources.policy, client, arguments, sources, questions, out / control)
    episodes = {control: list(read_trajectories(out / control / TRAJECTORIES)) for control in controls}
    rows = [row_of(control, episodes[control], episodes[BASELINE], hek) for control in controls]
    table = as_markdown(rows)
    with atomic_writer(out / "table.json") as file:
        file.write(json.dumps({"date": time.strftime("%Y-%m-%d"), "settings": settings, "rows": rows}, indent=1) + "\n")
    with atomic_writer(out / "table.md") as file:
        file.write(table)
    print(f"\n{table}\n{out / 'table.md'}")


def play(
    control: str, policy: Path, client: ChatClient, arguments: argparse.Namespace, sources: Sources, questions: list[Question], folder: Path
) -> None:
    """Play every question k times; an interrupted run goes on."""
    experience = None
    if shows(control, validating=True):
        encoder = open_encoder(HEK.load(sources.hek), sources.hek)
        start = StartConfig(**TRAIN["hiexp"]["start"])
        experience = open_experience(sources.hek, encoder, PolicyTokenizer(policy), start, control)
    settings = episode_settings(arguments.temperature, arguments.seed)
    search = open_engine(SearchConfig(corpus=str(sources.corpus)))
    rollout(questions, client, search, settings, arguments.k, folder, resume=True, experience=experience, progress=control)


def trained(control: str, arguments: argparse.Namespace, sources: Sources, folder: Path) -> Path:
    """Return the policy trained with this control: same start, data order, seed and steps for all."""
    done = folder / "done.json"
    if not done.is_file():
        print(f"\n== {control}: {arguments.train} steps of {arguments.algorithm}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)  # half a training is none
        folder.mkdir(parents=True)
        overrides = [
            f"hiexp.control={control}",
            f"hiexp.hek={sources.hek.resolve()}",
            f"hiexp.search.corpus={sources.corpus.resolve()}",
            f"hiexp.dump_dir={folder / 'episodes'}",
            f"data.train_files={sources.training_questions.resolve()}",
            f"data.val_files={sources.questions[-1].resolve()}",
            f"actor_rollout_ref.model.path={sources.policy.resolve()}",
            f"actor_rollout_ref.rollout.seed={arguments.seed}",
            f"trainer.total_training_steps={arguments.train}",
            f"trainer.save_freq={arguments.train}",
            f"trainer.default_local_dir={folder / 'checkpoints'}",
        ]
        result = train(DEMO_RECIPE, arguments.algorithm, overrides, folder, arguments.train)
        with atomic_writer(done) as file:
            file.write(json.dumps(result, indent=1) + "\n")
    return folder / "checkpoints" / f"global_step_{arguments.train}" / "actor" / "huggingface"


if __name__ == "__main__":
    sys.exit(main())
