"""`hiexp build --dry-run`: the prompts of a build and an estimate of its calls and tokens, without asking a model."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from hiexp_verl.distil.distillers import split_spec
from hiexp_verl.distil.draft import Draft
from hiexp_verl.distil.prompts import confirmation_prompt, prompt_files, reflection_prompt, summary_prompt
from hiexp_verl.distil.replies import MAX_TOKENS, Price
from hiexp_verl.distil.rules import RulesDistiller
from hiexp_verl.distil.spec import BuildSpec, run_build
from hiexp_verl.domains import domain_named
from hiexp_verl.domains.diagnosis import Diagnosis
from hiexp_verl.domains.domain import Domain
from hiexp_verl.errors import HiExpError
from hiexp_verl.models.tokenizer import PolicyTokenizer
from hiexp_verl.types import Entry, Level

CHARS_PER_TOKEN = 4  # of English
_ESTIMATED = " (estimated: clusters of what the rules would write)"


class Rehearsal(RulesDistiller):
    """Records the prompts and writes by rules, so that the levels above have entries to cluster."""

    name = "dry run"

    def __init__(self, domain: Domain) -> None:
        super().__init__(domain)
        self.asked: dict[str, list[str]] = {"e1": [], "e2": [], "e3": []}  # the same prompt is asked once

    def prompts(self) -> dict[str, str]:
        """Return the prompt files that would be used, by name."""
        return prompt_files(self.domain)

    def reflect(self, diagnoses: Sequence[Diagnosis]) -> list[Draft | None]:
        """Record what would be asked about each diagnosis."""
        self.asked["e1"] += dict.fromkeys(reflection_prompt(diagnosis, 0, self.domain) for diagnosis in diagnoses)
        return super().reflect(diagnoses)

    def summarise(self, groups: Sequence[Sequence[Entry]], level: Level) -> list[Draft | None]:
        """Record what would be asked about each group."""
        self.asked[level] += dict.fromkeys(summary_prompt(group, 0, level, self.domain) for group in groups)
        return super().summarise(groups, level)

    def confirm(self, pairs: Sequence[tuple[Draft, Entry]]) -> list[bool]:
        """Record what would be asked about each member."""
        self.asked.setdefault("confirm", []).extend(confirmation_prompt(*pair, self.domain) for pair in pairs)
        return super().confirm(pairs)


def dry_run(spec: BuildSpec, show: int = 3) -> str:
    """Return what a build would ask a model, with the first `show` prompts in full.

    Raises:
        HiExpError: the distiller asks no model, its tokenizer is not usable, or the build would give no experience.
    """
    if not isinstance(spec.distiller, str) or spec.distiller == "rules":
        raise HiExpError("a dry run needs a distiller that asks a model, by name; leave --dry-run out, or give --distiller KIND:PLACE")
    kind, place = split_spec(spec.distiller)
    local = kind.startswith("vllm")
    count = _with_tokenizer(Path(place)) if local else lambda prompt: len(prompt) // CHARS_PER_TOKEN
    rehearsal = Rehearsal(domain_named(spec.domain))
    counts = run_build(replace(spec, distiller=rehearsal, out=None, resume=False)).report.counts
    how = "counted by the model's tokenizer" if local else f"at {CHARS_PER_TOKEN} characters a token"
    diagnoses = sum(number for key, number in counts.items() if key.startswith("diagnosed."))
    prompts = [(level, prompt) for level, of_level in rehearsal.asked.items() for prompt in of_level]
    shown = [f"\n--- prompt {i} of {len(prompts)} ({level.upper()}) ---\n{text}" for i, (level, text) in enumerate(prompts[:show], start=1)]
    lines = [
        f"dry run of {spec.distiller}: no model was asked, nothing was written; prompt tokens are {how}",
        f"{counts['trajectories']:8,} trajectories of {counts['questions']:,} questions",
        f"{counts['questions_contrasted']:8,} contrasts",
        f"{diagnoses:8,} diagnoses",
    ]
    return "\n".join([*lines, *_calls(rehearsal.asked, count, spec.price), *shown])


def _with_tokenizer(model_dir: Path) -> Callable[[str], int]:
    if not model_dir.is_dir():
        raise HiExpError(f"model {model_dir} is not a directory; give the directory of the model that will distil")
    tokenizer = PolicyTokenizer(model_dir)
    return lambda prompt: tokenizer.count_prompt([{"role": "user", "content": prompt}])


def _calls(asked: dict[str, list[str]], count: Callable[[str], int], price: Price | None) -> list[str]:
    tokens = {level: sum(map(count, prompts)) for level, prompts in asked.items()}
    lines = [
        f"{len(prompts):8,} calls for {level.upper()} with {tokens[level]:,} prompt tokens{'' if level == 'e1' else _ESTIMATED}"
        for level, prompts in asked.items()
    ]
    calls, prompt_tokens = sum(map(len, asked.values())), sum(tokens.values())
    most = calls * MAX_TOKENS
    cost = f", cost at most {price.of(prompt_tokens, most):.4f}" if price else ""
    lines.append(f"{calls:8,} calls in all, {prompt_tokens:,} prompt + at most {most:,} completion tokens{cost}")
    return [*lines, "         a refused answer is asked for again once: at worst twice as much"]
