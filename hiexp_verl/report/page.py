"""The page of the report: its parts in order, empty ones left out."""

import os
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from hiexp_verl import __version__
from hiexp_verl.io.files import atomic_writer
from hiexp_verl.report import evaluations, policies, sections
from hiexp_verl.report.curves import REWARD, curves, first_curve, grouped, validations
from hiexp_verl.report.episodes import Played, outcome, pair, pairs, read_again, samples, single
from hiexp_verl.report.evolutions import evolutions, loops
from hiexp_verl.report.html import document, e, facts, folded, listed, number, plural, table
from hiexp_verl.report.pairs import pairs_section
from hiexp_verl.report.runs import Gathered, gather
from hiexp_verl.report.training import Training
from hiexp_verl.report.tree import tree, uses_of

_MAX_PAIRS, _MAX_SINGLE, _MAX_HEKS = 16, 4, 4
_FEW = 5  # steps at the beginning and at the end


def write_report(runs: Sequence[Path], out: Path, title: str = "") -> Gathered:
    """Write one HTML page about the runs in these directories, atomically; return the runs.

    Raises:
        HiExpError: a directory does not exist or holds no run, or `out` cannot be written.
    """
    found = gather(runs)
    names = [os.path.basename(os.path.realpath(run)) for run in runs]
    text = page(found, title or ", ".join(names if len(names) <= 3 else [*names[:2], f"{len(names) - 2} more"]))
    with atomic_writer(out) as file:
        file.write(text.encode("utf-8", "replace").decode())
    return found


def page(found: Gathered, title: str) -> str:
    """Return the page."""
    compared = policies.comparisons(found.evaluations, found.trainings)
    each = listed(evaluations.in_short(found.evaluations))
    parts = {
        "In short": "".join(listed([e(line) for line in recipe.get("in_short", [])]) for recipe in found.recipes.values())
        + listed(policies.in_short(compared))
        + (folded(f"Each of {plural(len(found.evaluations), 'evaluation')} alone", each) if compared else each)
        + _in_short(found.trainings),
        "Triggered alarms": sections.alarms(found.trainings),
        "Evaluation": policies.between(compared) + evaluations.tables(found.evaluations),
        "Evolution": evolutions(found.evolutions) + loops(found.trainings),
        "Curves": curves(found.trainings),
        "What was run": _what_was_run(found),
        "Experience": _heks(found),
        "Episodes": _episodes(found.played),
        "Pairs for self-distillation": pairs_section(found.pairs),
        "Cost": sections.cost(found.trainings, found.recipes, found.builds),
        "Not read": listed([e(fault) for fault in found.faults]),
    }
    parts = {heading: content for heading, content in parts.items() if content}
    links = "".join(f'<a href="#{_anchor(heading)}">{heading}</a>' for heading in parts)
    body = "\n".join(f'<section id="{_anchor(heading)}"><h2>{heading}</h2>{content}</section>' for heading, content in parts.items())
    footer = f'<footer class="soft">Made by hiexp-verl {e(__version__)}. This page needs no network.</footer>'
    return document(title, f'<h1>{e(title)}</h1>\n<nav aria-label="Parts">{links}</nav>\n{body}\n{footer}', "report.css")


def _anchor(heading: str) -> str:
    """Return the id of a part of the page."""
    return heading.lower().replace(" ", "-")


def _in_short(trainings: Sequence[Training]) -> str:
    """Return reward and validation at the beginning and at the end; of runs that differ in seeds alone, the means."""
    rows = []
    for group in grouped(trainings):
        row = {"training": f"<b>{e(group.name)}</b>", "steps": e(max(len(run.trained) for run in group.runs))}
        for name, keys in {"reward": REWARD, **{f"validation {name}": (key,) for key, name in validations(group.runs).items()}}.items():
            found = [curve for run in group.runs if (curve := first_curve(run, keys))]
            if found:
                first, last = (fmean(each) for each in zip(*(_ends([value for _, value in curve]) for curve in found), strict=True))
                row[name] = f"{first:.3f} &rarr; {last:.3f}" if max(map(len, found)) > 1 else f"{last:.3f}"
        shown = [value for run in group.runs for _, value in run.curve("hiexp/with_experience")]
        if shown:
            row["with experience"] = number(fmean(shown))
        rows.append(row)
    note = (
        f"Mean of the first and of the last {_FEW} values, of fewer where the two would overlap. Each step has other questions: in a few "
        "steps the reward goes up and down with them."
    )
    return table(rows) + (f'<p class="soft">{note}</p>' if rows else "")


def _ends(values: Sequence[float]) -> tuple[float, float]:
    few = max(1, min(_FEW, len(values) // 2))  # a value in both means would hide a part of the change
    return fmean(values[:few]), fmean(values[-few:])


def _what_was_run(found: Gathered) -> str:
    noted = [f"<h3>{e(name)}</h3>{facts(recipe['facts'])}" for name, recipe in found.recipes.items() if "facts" in recipe]
    return "".join(noted) + sections.settings(found.trainings) + sections.rollouts(found.rollouts)


def _heks(found: Gathered) -> str:
    placed = [one for one in found.played if not one.misplaced]
    kept = {one.run for one in found.played}  # of their episodes; others have counters alone
    parts = []
    for content_hash, hek in list(found.heks.items())[:_MAX_HEKS]:
        own = [one for one in placed if one.hek in (content_hash, "") or not one.shown]
        counters = [run.counters for run in found.trainings if run.hek == content_hash and run.name not in kept]
        parts.append(tree(hek, uses_of(own, counters, hek.entries)))
    more = len(found.heks) - len(parts)
    note = (
        '<p class="soft">Which entry an episode sees depends on its question, so the reward beside an entry does not measure its effect. '
        "The effect compares rollouts of the same question with and without experience, shrunk towards the entries beside it, with a "
        "95% interval.</p>"
    )
    return (note if parts else "") + "".join(parts) + (f'<p class="soft">and {plural(more, "HEK")} more</p>' if more > 0 else "")


def _episodes(played: Sequence[Played]) -> str:
    by_arm: dict[str, list[Played]] = {}
    for one in played:
        by_arm.setdefault(f"{one.run} {one.record.arm}", []).append(one)
    outcomes = table([{"episodes of": e(name), **outcome(group)} for name, group in by_arm.items()])
    chosen = pairs([one for one in played if not one.misplaced], _MAX_PAIRS)
    alone = [] if chosen else [one for group in by_arm.values() for one in samples(group, _MAX_SINGLE)][: 4 * _MAX_SINGLE]
    texts = read_again([*(one for both in chosen for one in both), *alone])
    side_by_side = "".join(pair(texts[a], texts[b], (_origin(a), _origin(b))) for a, b in chosen)
    singles = "".join(single(texts[one], _origin(one)) for one in alone)
    below = (
        f"{plural(len(chosen), 'question')} played without and with experience, those whose outcomes differ first"
        if chosen
        else plural(len(alone), "episode")
    )
    note = f'<p class="soft">Below are {below}, of {plural(len(played), "episode")} in all. What was injected is marked.</p>'
    return f"{outcomes}{note}{side_by_side}{singles}" if texts else ""


def _origin(one: Played) -> str:
    return f"{one.run} {one.record.arm}" + (f" step {one.step}" if one.step is not None else "")
