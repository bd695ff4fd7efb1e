"""The bank over the rounds of `hiexp evolve`, or the steps of a training: what was tested and decided, what came, what went, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiexp_verl.evolve.table import TABLE_JSON
from hiexp_verl.ledger.credit import Z95
from hiexp_verl.report.charts import interval_bar
from hiexp_verl.report.find import read_object
from hiexp_verl.report.html import e, folded, listed, plural, table
from hiexp_verl.report.training import Training


@dataclass(frozen=True)
class Evolution:
    """The rounds of one evolution, as its table has them."""

    name: str
    rounds: Sequence[Mapping[str, Any]]


def read_evolution(name: str, folder: Path, faults: list[str]) -> Evolution:
    """Read the table; an evolution that is still in its first round has none."""
    path = folder / TABLE_JSON
    rounds = read_object(path, faults).get("rounds", []) if path.is_file() else []
    try:
        for each in rounds:
            _row(each, 1.0)
            _changes(each)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        faults.append(f"{path} cannot be read ({type(error).__name__}: {error})")
        rounds = []
    return Evolution(name, rounds)


def evolutions(found: Sequence[Evolution]) -> str:
    """Return the rounds of each evolution, and below what came and went."""
    parts = []
    for each in found:
        tested = [done["verdict"] for done in each.rounds if done["verdict"] and done["verdict"]["error"] is not None]
        reach = max((abs(verdict["difference"]) + Z95 * verdict["error"] for verdict in tested), default=1.0)
        changes = "".join(f"<h4>{e(_heading(done))}</h4>{_changes(done)}" for done in each.rounds if done["came"] or done["went"])
        rows = table([_row(done, reach) for done in each.rounds])
        parts.append(
            f"<h3>{e(each.name)}</h3>{rows or '<p>No round is finished yet.</p>'}{folded('What came, what went, and why', changes)}"
        )
    note = (
        '<p class="soft">A candidate and the version in use play the same questions side by side. Gain: mean reward of the candidate minus '
        "that of the version in use, within questions, with its 95% interval.</p>"
    )
    return note + "".join(parts) if parts else ""


def loops(trainings: Sequence[Training]) -> str:
    """Return what the loop of each training did, step by step."""
    return "".join(f"<h3>{e(run.name)}</h3>{table([_event(event) for event in run.events])}" for run in trainings if run.events)


def _event(event: Mapping[str, Any]) -> dict[str, str]:
    row = {"step": e(event["step"]), "event": f"<b>{e(event['event'])}</b>", "version": e(Path(event["version"]).name)}
    if verdict := event.get("verdict"):
        row["gain"] = _gain(verdict)
        row["groups"] = f"{verdict['look']:.0f}"
    return row | ({"why": e(event["why"])} if event["why"] else {})


def _gain(verdict: Mapping[str, Any], reach: float | None = None) -> str:
    """Return the gain with its interval, and drawn where the rows share a scale."""
    mean = verdict["difference"]
    low, high = (mean + sign * Z95 * verdict["error"] for sign in (-1, 1))
    drawn = interval_bar(mean, low, high, (-reach, reach), (low > 0) - (high < 0)) if reach is not None else ""
    return f'{mean:+.3f} <span class="soft">[{low:+.3f}, {high:+.3f}]</span>{drawn}'


def _heading(done: Mapping[str, Any]) -> str:
    decision = done["verdict"]["decision"] if done["verdict"] else "not tested"
    return f"Round {done['number']}, candidate {done['candidate']}: {decision}"


def _row(done: Mapping[str, Any], reach: float) -> dict[str, str]:
    verdict, rewards = done["verdict"], done["rewards"]
    row = {"round": e(done["number"]), "in use": e(done["incumbent"]), "candidate": e(done["candidate"] or "")}
    row |= {"came": str(len(done["came"])), "went": str(len(done["went"]))}
    if verdict is not None:
        row["decision"] = f"<b>{e(verdict['decision'])}</b> after {plural(int(verdict['look']), 'group')}"
        if verdict["error"] is not None:
            row["gain"] = _gain(verdict, reach)
    row["reward: none, in use, candidate"] = ", ".join(
        f"{rewards[each]:.3f}" for each in ("none", "incumbent", "candidate") if each in rewards
    )
    return row | {"rollouts": e(f"{done['rollouts']:,}")}


def _changes(done: Mapping[str, Any]) -> str:
    items = []
    signs = (("+", "good", done["came"]), ("-", "bad", done["went"]))
    for sign, style, changes in (*signs, ("lost", "bad", done.get("lost", ())), ("rewritten", "good", done.get("rewritten", ()))):
        for change in changes:
            why = f' <span class="soft">({e(change["why"])})</span>' if change["why"] else ""
            level = f'<span class="tag">{e(change["level"]).upper()}</span>'
            items.append(
                f'<span class="{style}">{sign}</span> {level}<b dir="auto">{e(change["title"])}</b> {e(change["description"])}{why}'
            )
    drafts = ", ".join(f"{each['version']} {each['reward']:.3f}" for each in done.get("drafts", ()))
    return f"<p>{e(done['why'])}{e(f'; drafts by mean reward: {drafts}' if drafts else '')}</p>{listed(items)}"
