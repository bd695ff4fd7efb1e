"""The method, top to bottom: trajectories -> contrasts -> diagnoses -> E1 -> E2 -> E3 -> thresholds."""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from tqdm import tqdm

from hiexp_verl.distil.cluster import Linkage, threshold_of
from hiexp_verl.distil.contrast import contrasts, distinct
from hiexp_verl.distil.counts import label_of, table_of
from hiexp_verl.distil.distillers import Distiller
from hiexp_verl.distil.entries import cases_of, number
from hiexp_verl.distil.kinds import patterns_of_kinds
from hiexp_verl.distil.plan import with_plans
from hiexp_verl.distil.replies import Price, Usage
from hiexp_verl.distil.summarise import LevelConfig, level_above
from hiexp_verl.distil.thresholds import thresholds
from hiexp_verl.domains.diagnosis import Contrast, Diagnosis
from hiexp_verl.domains.domain import Domain
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.same_question import near_duplicates
from hiexp_verl.hek.schema import Header
from hiexp_verl.hek.store import HEK
from hiexp_verl.masking import knows_names
from hiexp_verl.models.encoder import Encoder
from hiexp_verl.settings import Count, Flag, Number, settings
from hiexp_verl.types import Entry, Level, Source, Trajectory
from hiexp_verl.wording import is_english

logger = logging.getLogger(__name__)
PATTERNS_PER_STRATEGY = 2.5  # on average
Map = Callable[[Callable[[Contrast], list[Diagnosis]], Sequence[Contrast]], list[list[Diagnosis]]]


@settings(kw_only=True)
class DistilSettings:
    """Settings of the method."""

    success_at: Number | None = None  # score that makes a success; None: the trajectory's own mark
    single_sided: Flag = False  # also reflect on questions without a success
    cases_per_question: Count = 2  # at most so many E1, with different findings
    linkage: Linkage = "ward"
    plans: Literal["kind", "case"] = "kind"  # kind: an E2 per kind of question, its plan by tally; case: plans of E1 in E2 of clusters
    plan_support: Count = 2  # kind: questions that a plan must have solved
    cluster_size: Annotated[Number, Field(ge=1)] = 4.0  # E1 under an E2, on average
    heights: Mapping[Level, float] = field(default_factory=dict)  # at which entries of a level are clustered, instead of by size
    confirm: Flag = False  # ask the distiller whether a summary holds for each of its members
    preconditions: Flag = False  # E1 have those of the rule for their diagnosis, and are shown only where they hold


class NoExperience(HiExpError):
    """No entry could be written from these trajectories."""


@dataclass(frozen=True)
class BuildReport:
    """How a HEK came about."""

    counts: dict[str, int]  # what was used, made, and left out with its reason: keys as in `counts.TEXTS`
    tool_fire_rate: float  # expected share of searches with an E1, leave-one-out, on the trajectories it was built from
    usage: Usage | None = None  # what the answers of a model took


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
        """Return the counts, the expected fire rate, what the answers took, and the number of entries, for people."""
        lines = table_of(self.report.counts)
        lines.append(f"{self.report.tool_fire_rate:6.0%} of these searches would get an E1 of another question")
        if self.report.usage:
            lines.append(f"distiller: {self.report.usage.summary(price)}")
        levels = ", ".join(f"{count} {level.upper()}" for level, count in self.hek.levels.items())
        return "\n".join([*lines, f"{levels} in {self.version}" if self.version else levels])


def one_by_one(function: Callable[[Contrast], list[Diagnosis]], items: Sequence[Contrast]) -> list[list[Diagnosis]]:
    """Map in this process, with a progress bar when it takes a while (`distil.ray.ray_map` maps on a cluster)."""
    return [function(item) for item in tqdm(items, desc="diagnose", disable=len(items) < 50)]


def distil(
    trajectories: Iterable[Trajectory],
    distiller: Distiller,
    encoder: Encoder,
    config: DistilSettings | None = None,
    map_contrasts: Map = one_by_one,
) -> Built:
    """Distil trajectories into experience: cases (E1), patterns (E2), strategies (E3).

    1. Contrast: the trajectories of a question, successes beside failures.
    2. Diagnose: what each failure did otherwise than a success, by computation.
    3. Reflect: the distiller writes a case for each diagnosis; gates refuse, near-duplicates are merged.
    4. Tally the searches of each kind of question: the plan that was right most often is a pattern.
    5. Cluster the titles of the other cases, summarise each cluster into a pattern; the same again for strategies.
    6. Encode all titles; choose the minimum score of a match from the searches of the trajectories.

    Raises:
        NoExperience: there is nothing to contrast, or no entry could be written; the message says why.
        HiExpError: an id stands for two questions, or the distiller cannot be used.
    """
    config, domain = config or DistilSettings(), distiller.domain
    given = list(trajectories)
    trajectories, dropped = distinct(given, config.success_at)
    _warn_of_languages({t.question for t in trajectories})
    logger.info("contrasting %d trajectories", len(trajectories))
    contrasted, not_contrasted = contrasts(trajectories, config.single_sided, domain.normalise)
    logger.info("diagnosing the failures of %d contrasts", len(contrasted))
    diagnoses = list(chain.from_iterable(map_contrasts(partial(_diagnosed, domain, config.cases_per_question), contrasted)))
    logger.info("reflecting on %d diagnoses with %s", len(diagnoses), distiller.name)
    cases, not_admitted = cases_of(diagnoses, distiller.reflect(diagnoses), encoder, domain, config.preconditions)
    by_kind, no_plans = [], Counter[str]()
    if config.plans == "kind":
        rollouts, _ = distinct(given, config.success_at, copies=True)
        by_kind, no_plans = patterns_of_kinds(rollouts, cases, config.plan_support, domain)
        kept = {t.id for t in trajectories}
        by_kind = [replace(each, sources=tuple(id for id in each.sources if id in kept)) for each in by_kind]
    rest = [case for case in cases if not any(case.id in pattern.children for pattern in by_kind)]
    logger.info("clustering %d E1, summarising the clusters", len(rest))
    pattern = LevelConfig(config.cluster_size, config.heights.get("e1"), config.linkage, config.confirm)
    clustered, pattern_height, no_patterns = level_above(rest, "e2", distiller, encoder, pattern)
    patterns = number([*by_kind, *clustered], "e2")
    logger.info("clustering %d E2, summarising the clusters", len(patterns))
    strategy = replace(pattern, cluster_size=PATTERNS_PER_STRATEGY, max_height=config.heights.get("e2"))
    strategies, strategy_height, no_strategies = level_above(patterns, "e3", distiller, encoder, strategy)
    for left_out in (not_contrasted, not_admitted, no_plans, no_patterns, no_strategies, distiller.dropped):
        dropped.update(left_out)
    counts = _counts(given, contrasted, diagnoses, (cases, patterns, strategies), dropped)
    entries = (*cases, *(with_plans(patterns, cases) if config.plans == "case" else patterns), *strategies)
    if not entries or (diagnoses and not cases):  # plans by tally alone would hide that the distiller wrote nothing
        foreign = any(name.endswith("other_script") for name in not_admitted)
        advice = "give a --distiller that writes as the questions do" if foreign else "roll out more per question, or give --single-sided"
        raise NoExperience(f"the trajectories gave no experience ({_why(counts)}); {advice}")
    logger.info("encoding %d titles, choosing thresholds", len(entries))
    sources = [source_of(t, domain) for t in trajectories]
    hek = _hek(entries, sources, distiller, encoder, counts)
    scores, fire_rate = thresholds(hek, sources, encoder, domain=domain)
    heights = {threshold_of("e1", config.linkage): pattern_height, threshold_of("e2", config.linkage): strategy_height}
    report = BuildReport(counts, fire_rate, distiller.usage)
    return Built(replace(hek, header=replace(hek.header, thresholds=scores | heights)), report)


def _warn_of_languages(questions: set[str]) -> None:
    """Say so where names are not found as in English."""
    caseless = [question for question in questions if not knows_names(question)]
    foreign = [question for question in questions if knows_names(question) and not is_english(question)]
    for found, least, what in (
        (caseless, 1, "have no letter that could be a capital: only names between quotation marks are masked"),
        (foreign, len(questions) // 2 + 1, "seem to be in another language than English, whose rules find names"),
    ):
        if len(found) >= least:
            logger.warning(
                "%d of %d questions %s, and what they ask for is not known; read the entries for names", len(found), len(questions), what
            )


def _diagnosed(domain: Domain, most: int, contrast: Contrast) -> list[Diagnosis]:
    return domain.diagnose(contrast, most)


def source_of(t: Trajectory, domain: Domain) -> Source:
    """Return the summary that a HEK keeps of a trajectory."""
    return Source(t.id, t.question_id, t.question, t.model, t.prediction, t.correct, tuple(domain.actions(t.messages)))


def _hek(entries: tuple[Entry, ...], sources: Sequence[Source], distiller: Distiller, encoder: Encoder, counts: dict[str, int]) -> HEK:
    """Return the HEK of the entries, without thresholds, with the sources that they rest on."""
    header = Header(
        encoder=encoder.identity,
        distiller=distiller.name,
        domain=distiller.domain.name,
        models=tuple(sorted({source.model for source in sources if source.model})),
        prompts={name: hashlib.sha256(text.encode()).hexdigest() for name, text in sorted(distiller.prompts().items())},
        counts=counts,
        near_duplicates=near_duplicates({source.question_id: source.question for source in sources}, encoder),
    )
    used = {source for entry in entries for source in entry.sources}
    vectors_E_D = encoder.encode_passages([entry.title for entry in entries])
    return HEK(header, entries, vectors_E_D, tuple(source for source in sources if source.id in used))


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
    texts = [f"{count} {label_of(key.removeprefix('left_out.'))}" for key, count in counts.items() if count and key != "trajectories"]
    return "; ".join(texts) or "no trajectories"
