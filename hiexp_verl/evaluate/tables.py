"""Rows of an evaluation and its table: one row an episode, means with intervals an arm, and both as Markdown; pure functions."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from hiexp_verl.config import Arm
from hiexp_verl.evaluate.statistics import mean_interval, paired_difference
from hiexp_verl.guide.record import EpisodeRecord, aggregate
from hiexp_verl.types import Trajectory

BASE: Arm = "none"
ALL = "all"  # the questions of every data set
MEASURES = ("concise", "em", "f1", "cem")
JUDGE = "judge"  # beside them where a model judged
NAMES = {"concise": "correct", "em": "EM", "f1": "F1", "cem": "CEM", JUDGE: "judge"}  # as tables and the report call them

Row = Mapping[str, Any]


def row_of(dataset: str, seed: int, arm: str, t: Trajectory) -> dict[str, Any]:
    """Return what is kept of one episode: nothing that depends on when or where it was played."""
    record = EpisodeRecord.of(t)
    totals = aggregate([record])
    return {
        "dataset": dataset,
        "seed": seed,
        "arm": arm,
        "id": t.question_id,
        "question": t.question,
        "prediction": t.prediction,
        **{name: t.extra[name] for name in (*MEASURES, "format")},
        "searches": totals.searches,
        "failed_searches": totals.failed_searches,
        "lookup_failures": totals.lookup_failures,
        "tokens": totals.completion_tokens,  # that the policy wrote
        "experience_tokens": totals.experience_tokens,
        "shown": [row["entry"] for row in record.shown],
        "stop": record.stop or "",
    }


def table_of(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return a line for each data set and arm, and for all data sets where there are several.

    The score of a question is its mean over seeds. Questions are resampled and swapped: samples of one question are not independent.

    Raises:
        HiExpError: two arms did not play the same questions.
    """
    return [line for dataset, by_arm in _parts(rows) for line in _lines(dataset, by_arm)]


def pairs_of(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return every arm against every one before it, in every measure.

    Raises:
        HiExpError: two arms did not play the same questions.
    """
    pairs = []
    for dataset, by_arm in _parts(rows):
        for against, arm in combinations(by_arm, 2):
            for name in _measures(by_arm):
                values, others = _by_question(by_arm[arm], name), _by_question(by_arm[against], name)
                if len(values) > 1:
                    gap = vars(paired_difference(values, others))
                    pairs.append({"dataset": dataset, "arm": arm, "against": against, "measure": name, **gap})
    return pairs


def _parts(rows: Sequence[Row]) -> Iterator[tuple[str, dict[str, list[Row]]]]:
    """Yield each data set, and all of several, with its rows by arm."""
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    for dataset in [*datasets, *([ALL] if len(datasets) > 1 else [])]:
        by_arm: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            if dataset in (row["dataset"], ALL):
                by_arm[row["arm"]].append(row)
        yield dataset, by_arm


def _measures(by_arm: Mapping[str, Sequence[Row]]) -> tuple[str, ...]:
    judged = all(JUDGE in row for played in by_arm.values() for row in played)
    return (*MEASURES, JUDGE) if judged else MEASURES


def _lines(dataset: str, by_arm: Mapping[str, Sequence[Row]]) -> list[dict[str, Any]]:
    lines = []
    for arm, played in by_arm.items():
        line: dict[str, Any] = {"dataset": dataset, "arm": arm, "episodes": len(played)}
        for name in _measures(by_arm):
            values = _by_question(played, name)
            line[name] = float(np.mean(list(values.values())))
            if len(values) > 1:  # one question has no spread
                line[f"{name}_interval"] = list(mean_interval(values))
                if BASE in by_arm and arm != BASE:
                    line[f"{name}_minus_none"] = vars(paired_difference(values, _by_question(by_arm[BASE], name)))
        for name in ("format", "searches", "failed_searches", "lookup_failures", "tokens", "experience_tokens"):
            line[name] = float(np.mean([row.get(name, 0) for row in played]))
        line["stops"] = {stop: count / len(played) for stop, count in Counter(row.get("stop", "") for row in played).most_common()}
        line["with_experience"] = float(np.mean([bool(row["shown"]) for row in played]))
        lines.append(line)
    return lines


def _by_question(rows: Sequence[Row], measure: str) -> dict[str, float]:
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        values[f"{row['dataset']}/{row['id']}"].append(float(row[measure]))
    return {question: float(np.mean(each)) for question, each in values.items()}


_AGAIN = (
    "Finished episodes are kept, also with --resume. To play these again, fix the cause, delete their folders (DATA SET/seed-S/ARM) and "
    "add --resume."
)
_TESTS = (
    "p values are not corrected for the number of comparisons. Where p is above 0.05 and the interval excludes 0 (a bootstrap of few "
    "questions that differ is too narrow), treat the difference as not significant."
)
Line = Mapping[str, Any]


def as_markdown(table: Mapping[str, Any]) -> str:
    """Return the measures with intervals and what an episode costs, arm against arm, what failed, how it was played."""
    measures = ("em", "concise", *([JUDGE] if JUDGE in table["arms"][0] else []))
    parts = [_arms(table["arms"], measures), _pairs(table["pairs"], measures[1:]), _failures(table["arms"]), _played(table)]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _arms(lines: Sequence[Line], measures: Sequence[str]) -> list[str]:
    heads = ["data set", "arm", "episodes", *(f"{NAMES[n]} [95%]" for n in measures), "F1", "CEM"]
    heads += [f"{NAMES[measures[-1]]} - none [95%], p", "format", "searches", "tokens", "with experience", "s / episode"]
    rows = []
    for line in lines:
        gap = line.get(f"{measures[-1]}_minus_none")
        cells = [line["dataset"], line["arm"], str(line["episodes"]), *(_mean(line, n) for n in measures)]
        cells += [f"{line['f1']:.3f}", f"{line['cem']:.3f}"]
        cells += [gap_as_text(gap) if gap else "", f"{line['format']:.2f}", f"{line['searches']:.2f}"]
        tokens = f"{line['tokens']:.0f}" if line["tokens"] else "-"  # not every server counts them
        rows.append([*cells, tokens, f"{line['with_experience']:.2f}", f"{line['seconds']:.1f}"])
    return _table(heads, rows)


def _pairs(pairs: Sequence[Line], measures: Sequence[str]) -> list[str]:
    """Return the arms against each other; the first table has the differences to `none`."""
    by_arms: dict[tuple[str, str, str], dict[str, str]] = defaultdict(dict)
    for pair in pairs:
        by_arms[pair["dataset"], pair["arm"], pair["against"]][pair["measure"]] = gap_as_text(pair)
    heads = ["data set", "arm against arm", *(f"{NAMES[n]} [95%], p" for n in measures)]
    rows = [
        [dataset, f"{arm} - {against}", *(gaps[n] for n in measures)]
        for (dataset, arm, against), gaps in by_arms.items()
        if against != BASE
    ]
    return [*(_table(heads, rows) if rows else []), *([""] if rows else []), *([_TESTS] if len(by_arms) > 1 else [])]


def _failures(lines: Sequence[Line]) -> list[str]:
    notes = []
    for line in lines:
        searches, failed, lookups = (round(line[name] * line["episodes"]) for name in ("searches", "failed_searches", "lookup_failures"))
        long = round(line["stops"].get("prompt_too_long", 0.0) * line["episodes"])
        arm = f"in arm {line['arm']} of {line['dataset']}"
        if line["dataset"] != ALL:
            notes += [f"{failed} of {searches} searches failed {arm}."] if failed else []
            notes += [f"{long} of {line['episodes']} episodes outgrew the model's context {arm} and have no answer."] if long else []
            notes += [f"{lookups} look-ups of experience failed {arm}: those episodes went on without."] if lookups else []
    return [*notes, _AGAIN] if notes else []


def _played(table: Mapping[str, Any]) -> list[str]:
    settings = table["settings"]
    seeds = ", ".join(map(str, table["seeds"]))
    lines = [f"{table['questions']} questions, {settings['model']}, temperature {settings['temperature']:g}, seeds {seeds}."]
    if len(table["seeds"]) > 1:
        lines += [f"correct is avg@{len(table['seeds'])}: the mean over the samples of each question, which estimates pass@1."]
    elif not settings["temperature"]:
        lines += ["correct is pass@1 of greedy decoding."]
    lines += [f"{table['batch_size']} episodes at a time, {table['seconds']:.0f} seconds in all; s / episode is within a batch."]
    if "prompt.top_k" in settings:
        places = [f"{p}: top {settings[f'{p}.top_k']}, {settings[f'{p}.max_tokens']} tokens" for p in ("prompt", "tool")]
        lines += [f"Experience at most, {'; '.join(places)}."]
    if JUDGE in table:
        unreadable = f"{table['unreadable_verdicts']} of {table['verdicts']} verdicts were neither yes nor no, and count as wrong"
        lines += [f"Judge: {table[JUDGE]}{f'; {unreadable}' if table['unreadable_verdicts'] else ''}."]
    if "replayed" in table:
        lines += [replayed_as_text(table)]
    return lines


def signed(value: float) -> str:
    """Return a difference with three digits and its sign; one that rounds to zero is +0.000."""
    return f"{round(value, 3) + 0.0:+.3f}"


def p_value(p: float) -> str:
    """Return `p 0.012`, and `p < 0.001` below three digits."""
    return f"p {p:.3f}" if p >= 0.0005 else "p < 0.001"


def replayed_as_text(table: Mapping[str, Any]) -> str:
    """Return how many episodes of the replay one at a time differ."""
    differ = f"Played once more one at a time, {table['differ_alone']} of {table['replayed']} episodes differ"
    return f"{differ}, {table['scores_differ_alone']} of them in their scores."


def _mean(line: Line, measure: str) -> str:
    span = line.get(f"{measure}_interval")
    return f"{line[measure]:.3f}" + (f" [{span[0]:.3f}, {span[1]:.3f}]" if span else "")


def gap_as_text(gap: Line) -> str:
    """Return a difference with its interval and p."""
    return f"{signed(gap['mean'])} [{signed(gap['low'])}, {signed(gap['high'])}], {p_value(gap['p'])}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]
