"""The method, top to bottom: trajectories -> contrasts -> diagnoses -> E1 -> E2 -> E3 -> thresholds."""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from hiexp_verl.distil.cluster import threshold_of
from hiexp_verl.distil.contrast import Contrast, contrasts, distinct
from hiexp_verl.distil.counts import table_of, text_of
from hiexp_verl.distil.diagnose import Diagnosis, diagnose
from hiexp_verl.distil.distillers import Distiller, PromptedDistiller
from hiexp_verl.distil.draft import Draft, clean
from hiexp_verl.distil.entries import case, merge_near_duplicates, number
from hiexp_verl.distil.plan import with_plans
from hiexp_verl.distil.replies import Price, Usage
from hiexp_verl.distil.rules import advice_for
from hiexp_verl.distil.summarise import LevelConfig, level_above
from hiexp_verl.distil.thresholds import thresholds
from hiexp_verl.distil.validate import admit, closer_than_chance, is_advice
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.same_question import near_duplicates
from hiexp_verl.hek.schema import Header
from hiexp_verl.hek.store import HEK
from hiexp_verl.models.encoder import Encoder
from hiexp_verl.protocol import searches
from hiexp_verl.types import Entry, Source, Trajectory

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DistilSettings:
    """Settings of the method."""

    success_at: float | None = None  # score that makes a success; None: the trajectory's own mark
    single_sided: bool = False  # also reflect on questions with failures only
    cases_per_question: int = 2  # at most so many E1, with different findings
    merge_cosine: float = 0.9  # E1 whose titles and descriptions are both this similar are one
    pattern: LevelConfig = field(default_factory=LevelConfig)  # E1 -> E2
    strategy: LevelConfig = field(default_factory=lambda: LevelConfig(cluster_size=2.5, merge_cosine=0.85))  # E2 -> E3
    confirm: bool = False  # ask the distiller of each member whether its summary holds for it
    percentile: float = 95.0  # of the cosines with other questions' titles: the minimum score of a match
    min_fire_rate: float = 0.3  # of searches that must get an E1; the minimum score is lowered for it
    max_fire_rate: float = 0.5  # of searches that may get one; the minimum score is raised for it


@dataclass(frozen=True)
class BuildReport:
    """How a HEK came about."""

    counts: dict[str, int]  # what was used, made, and left out with its reason: keys as in `counts.TEXTS`
    tool_fire_rate: float  # expected share of searches with an E1, leave-one-out, on the trajectories it was built from
    usage: Usage | None = None  # what the answers of a model took

    def summary(self) -> str:
        """Return the counts and the expected fire rate, one a line."""
        return "\n".join([*table_of(self.counts), f"{self.tool_fire_rate:6.0%} of these searches would get an E1 of another question"])


@dataclass(frozen=True)
class Built:
    """A HEK, how it came about, and where it was saved."""

    hek: HEK
    report: BuildReport
    version: Path | None = None  # None: not saved

    def outcome(self, price: Price | None = None) -> dict[str, Any]:
        """Return the numbers of the build."""
        usage = self.report.usage
        cost = price.of(usage.prompt_tokens, usage.completion_tokens) if usage and price else None
        return {"levels": self.hek.levels} | asdict(self.report) | {"cost": cost}

    def summary(self, price: Price | None = None) -> str:
        """Return the report, what the answers took, and the number of entries, for people."""
        levels = ", ".join(f"{count} {level.upper()}" for level, count in self.hek.levels.items())
        usage = f"\ndistiller: {self.report.usage.summary(price)}" if self.report.usage else ""
        return f"{self.report.summary()}{usage}\n{levels}{f' in {self.version}' if self.version else ''}"


class Map(Protocol):
    """Applies a function to every item, in order (`one_by_one` here, `distil.ray.ray_map` on a cluster)."""

    def __call__(self, function: Callable[[Contrast], list[Diagnosis]], items: Sequence[Contrast], /) -> list[list[Diagnosis]]: ...


def one_by_one(function: Callable[[Contrast], list[Diagnosis]], items: Sequence[Contrast]) -> list[list[Diagnosis]]:
    """Map in this process, with a progress bar when it takes a while."""
    return [function(item) for item in tqdm(items, desc="diagnose", disable=len(items) < 50)]


def distil(
    trajectories: Iterable[Trajectory],
    distiller: Distiller,
    encoder: Encoder,
    config: DistilSettings | None = None,
    map_contrasts: Map = one_by_one,
) -> Built:
    """Distil trajectories into experience: cases (E1), patterns (E2), strategies (E3).

    Raises:
        HiExpError: an id stands for two questions, there is nothing to contrast, or no entry could be written; the message says why.
    """
    config = config or DistilSettings()
    given = list(trajectories)
    trajectories, repeated = distinct(given)
    logger.info("contrasting %d trajectories", len(trajectories))
    contrasted, dropped = contrasts(trajectories, config.success_at, config.single_sided)
    dropped.update(repeated)
    logger.info("diagnosing the failures of %d contrasts", len(contrasted))
    diagnoses = list(chain.from_iterable(map_contrasts(partial(diagnose, most=config.cases_per_question), contrasted)))
    logger.info("reflecting on %d diagnoses with %s", len(diagnoses), distiller.name)
    cases = _cases(diagnoses, distiller, encoder, config, dropped)
    logger.info("clustering %d E1, summarising the clusters", len(cases))
    patterns, pattern_height = level_above(cases, "e2", distiller, encoder, config.pattern, dropped, config.confirm)
    logger.info("clustering %d E2, summarising the clusters", len(patterns))
    strategies, strategy_height = level_above(patterns, "e3", distiller, encoder, config.strategy, dropped, config.confirm)
    if isinstance(distiller, PromptedDistiller):
        dropped.update(distiller.dropped)
    counts = _counts(given, contrasted, diagnoses, (cases, patterns, strategies), dropped)
    entries = (*cases, *with_plans(patterns, cases), *strategies)
    if not entries:
        raise HiExpError(f"the trajectories gave no experience ({_why(counts)}); roll out more per question, or give --single-sided")
    header = Header(
        encoder=encoder.identity,
        distiller=distiller.name,
        models=tuple(sorted({t.model for t in trajectories if t.model})),
        prompts={name: hashlib.sha256(text.encode()).hexdigest() for name, text in sorted(distiller.prompts().items())},
        counts=counts,
        near_duplicates=near_duplicates({t.question_id: t.question for t in trajectories}, encoder),
    )
    logger.info("encoding %d titles, choosing thresholds", len(entries))
    vectors_E_D = encoder.encode_passages([entry.title for entry in entries])
    asked = [source_of(t) for t in trajectories]
    used = {source for case in cases for source in case.sources}
    hek = HEK(header, entries, vectors_E_D, tuple(source for source in asked if source.id in used))
    scores, fire_rate = thresholds(hek, asked, encoder, config.percentile, config.min_fire_rate, config.max_fire_rate)
    heights = {
        threshold_of("e1", config.pattern.linkage): pattern_height,
        threshold_of("e2", config.strategy.linkage): strategy_height,
    }
    return Built(replace(hek, header=replace(header, thresholds=scores | heights)), BuildReport(counts, fire_rate))


def source_of(t: Trajectory) -> Source:
    """Return what a HEK remembers of a trajectory."""
    return Source(t.id, t.question_id, t.question, t.model, t.prediction, t.correct, tuple(s.query for s in searches(t.messages)))


def _cases(
    diagnoses: Sequence[Diagnosis], distiller: Distiller, encoder: Encoder, config: DistilSettings, dropped: Counter[str]
) -> list[Entry]:
    admitted: list[tuple[Draft, Diagnosis]] = []
    for diagnosis, draft in zip(diagnoses, distiller.reflect(diagnoses), strict=True):
        # Whoever wrote it: a template carries words of the question, too. Of None the distiller counts the reasons.
        result = admit(draft, diagnosis) if draft is not None else None
        if isinstance(result, Draft):
            # Whether it is a thing to do or a mistake to avoid is computed: models call all of it a guide.
            admitted.append((replace(result, kind=advice_for(diagnosis).kind), diagnosis))
        elif result is not None:
            dropped[f"e1.{result}"] += 1
    kept = _to_the_point(admitted, encoder, dropped)
    written = [case(draft, diagnosis) for draft, diagnosis in _with_fitting_titles(kept, encoder, dropped)]
    merged = merge_near_duplicates(written, encoder, config.merge_cosine, config.merge_cosine)
    dropped["e1.near_duplicate"] += len(written) - len(merged)
    return number(merged, "e1")


def _to_the_point(drafts: Sequence[tuple[Draft, Diagnosis]], encoder: Encoder, dropped: Counter[str]) -> list[tuple[Draft, Diagnosis]]:
    """Leave out drafts whose advice is not specific to their diagnosis: see `closer_than_chance`, with the rules' advice as target."""
    if not drafts:
        return []
    called_for = [advice_for(d).description for _, d in drafts]
    advice_N_D, called_for_N_D = (encoder.encode_passages(texts) for texts in ([draft.description for draft, _ in drafts], called_for))
    kept = [one for one, fits in zip(drafts, closer_than_chance(advice_N_D, called_for_N_D), strict=True) if fits]
    dropped["e1.lost_point"] += len(drafts) - len(kept)
    return kept


def _with_fitting_titles(
    drafts: Sequence[tuple[Draft, Diagnosis]], encoder: Encoder, dropped: Counter[str]
) -> list[tuple[Draft, Diagnosis]]:
    """Put the kind of question, which is computed, in the place of each title that fits others as well, or is advice."""
    if not drafts:
        return []
    kinds = [clean(replace(draft, title=d.kind_of_question), d.masker, d.answers, d.question) or draft for draft, d in drafts]
    titles_N_D, kinds_N_D = (encoder.encode_passages([draft.title for draft in each]) for each in ([draft for draft, _ in drafts], kinds))
    fits = [fit and not is_advice(draft) for fit, (draft, _) in zip(closer_than_chance(titles_N_D, kinds_N_D), drafts, strict=True)]
    dropped["e1.title_replaced"] += fits.count(False)
    return [(draft if fit else kind, d) for (draft, d), kind, fit in zip(drafts, kinds, fits, strict=True)]


def _counts(
    trajectories: Sequence[Trajectory],
    contrasted: Sequence[Contrast],
    diagnoses: Sequence[Diagnosis],
    levels: Sequence[Sequence[Entry]],
    dropped: Counter[str],
) -> dict[str, int]:
    questions = len({t.question_id for t in trajectories})
    made = {"trajectories": len(trajectories), "questions": questions, "questions_contrasted": len(contrasted)}
    findings = Counter(f"diagnosed.{diagnosis.finding}" for diagnosis in diagnoses)
    made |= dict(sorted(findings.items())) | {f"written.e{level}": len(entries) for level, entries in enumerate(levels, start=1)}
    return made | {f"left_out.{reason}": count for reason, count in sorted(dropped.items()) if count}


def _why(counts: dict[str, int]) -> str:
    texts = [f"{count} {text_of(key.removeprefix('left_out.'))}" for key, count in counts.items() if count and key != "trajectories"]
    return "; ".join(texts) or "no trajectories"
