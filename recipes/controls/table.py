"""One table of what controls did: pure functions from episodes to numbers and Markdown. Its fields are those of `hiexp eval`."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from hiexp_verl.hek.store import HEK
from hiexp_verl.run.eval_markdown import signed
from hiexp_verl.run.statistics import paired_difference
from hiexp_verl.run.summary import summarise
from hiexp_verl.scoring import score
from hiexp_verl.types import Trajectory

BASELINE = "none"
MEASURES = ("em", "f1", "cem", "acc")
COLUMNS = {
    "arm": "control",
    "episodes": "episodes",
    "em": "EM",
    "f1": "F1",
    "cem": "CEM",
    "acc": "acc",
    "format": "format",
    "searches": "searches",
    "with_experience": "with experience",
    "entries": "entries",
    "experience_tokens": "tokens",
    "e1_fire_rate": "E1 fires",
    "own": "own",
}


def row_of(control: str, episodes: Sequence[Trajectory], baseline: Sequence[Trajectory], hek: HEK) -> dict[str, Any]:
    """Return a control's means over episodes, and its differences to the baseline with 95% intervals.

    Raises:
        HiExpError: the baseline played other questions.
    """
    told = summarise(episodes)
    gaps = {name: paired_difference(by_question(episodes, name), by_question(baseline, name)) for name in MEASURES}
    shown = [t.extra.get("shown", []) for t in episodes]
    return {
        "arm": control,
        "episodes": len(episodes),
        **{name: float(np.mean(list(by_question(episodes, name).values()))) for name in (*MEASURES, "format")},
        "searches": told["mean_searches"],
        "with_experience": float(np.mean([bool(rows) for rows in shown])),
        "entries": float(np.mean([len(rows) for rows in shown])),  # per episode
        "experience_tokens": told["experience_tokens"],  # per episode
        "e1_fire_rate": told["e1_fire_rate"],
        "own": float(np.mean([saw_its_own(t, hek) for t in episodes])),
        **({} if control == BASELINE else {f"{name}_minus_base": vars(gap) for name, gap in gaps.items()}),
    }


def by_question(episodes: Sequence[Trajectory], measure: str) -> dict[str, float]:
    """Return the mean of a measure over each question's episodes: what is paired, for samples of a question are not independent."""
    values: dict[str, list[float]] = defaultdict(list)
    for t in episodes:
        values[t.question_id].append(getattr(score(t.prediction, t.answers), measure))
    return {question: float(np.mean(each)) for question, each in values.items()}


def saw_its_own(episode: Trajectory, hek: HEK) -> bool:
    """Whether the episode was shown an entry that comes from nothing but its own question: the leak."""
    own = {episode.question_id, *hek.header.near_duplicates.get(episode.question_id, ())}
    leaks = {entry.id for entry in hek.entries if entry.questions and own.issuperset(entry.questions)}
    return any(row["entry"] in leaks for row in episode.extra.get("shown", ()))


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table; the difference shown is that of acc, those of the other measures are in table.json."""
    lines = [[*COLUMNS.values(), f"acc - {BASELINE} [95%]"]]
    for row in rows:
        gap = row.get("acc_minus_base")
        told = f"{signed(gap['mean'])} [{signed(gap['low'])}, {signed(gap['high'])}]" if gap else ""
        lines.append([*(_cell(row[name]) for name in COLUMNS), told])
    lines.insert(1, ["---", *(["---:"] * len(COLUMNS))])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cell(value: float | str) -> str:
    if isinstance(value, float):
        return f"{value:.2f}" if value < 10 else f"{value:.0f}"
    return str(value)
