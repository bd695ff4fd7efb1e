"""Episodes: of thousands only what is counted is kept in memory, the few that are shown in full are read again."""

import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from hiexp_verl.io.datasets import trajectory_of
from hiexp_verl.io.rows import BadRow, Row, read_rows
from hiexp_verl.report.find import flat
from hiexp_verl.report.html import e, plural
from hiexp_verl.types import Trajectory

_STEP = re.compile(r"@(\d+)$")  # our trainer ends the ids of its dump so
# What may differ between two sets of episodes that are compared: it is what they are compared for.
_ARM_SETTINGS = re.compile(r"hek|arm|(prompt|tool)\..+")
MISPLACED = ("random", "shuffled")  # arms whose entries do not fit the question


@dataclass(frozen=True)
class Played:
    """An episode in brief."""

    path: Path
    line: int
    question: tuple[str, str]  # id and text: two data sets may have the same ids
    run: str  # the training, evaluation or rollout that it belongs to
    arm: str  # of an evaluation; "" elsewhere
    step: int | None  # of a training
    scope: str  # episodes on one question and of one scope differ in the experience alone, and may be compared
    hek: str | None  # content hash; None where it is not known
    shown_as: str  # the arm by its settings; "" where it is not known
    correct: bool
    score: float
    shown: frozenset[str]  # ids of entries
    searches: int
    lookups: int | None
    experience_tokens: int
    tokens: int | None  # that the policy wrote
    seconds: float | None
    answered: bool
    model: str


def read_played(
    path: Path, run: str, family: str, settings: Mapping[str, Any], faults: list[str], arm: str = "", hek: str | None = None
) -> list[Played]:
    """Read a file of episodes; what cannot be read is added to `faults`.

    Args:
        family: with the same settings, apart from experience, episodes of one family can be compared.
        settings: how they were played.
        hek: what they were shown of, where the settings do not say it.
    """
    played, bad = [], []
    hek, shown_as = settings.get("hek", hek), str(settings.get("arm", ""))
    hek = hek if isinstance(hek, str) else None
    common = json.dumps([family, {key: value for key, value in flat(settings).items() if not _ARM_SETTINGS.fullmatch(key)}], sort_keys=True)
    for line, row in read_rows(path, surrogates=True):
        try:
            if isinstance(row, BadRow):
                raise row
            played.append(_brief(trajectory_of(row), path, line, run, arm, common, hek, shown_as))
        except (BadRow, ValueError, TypeError, KeyError) as error:
            bad.append(f"line {line}: {error}")
    if bad:
        faults.append(unreadable(path, bad, len(played)))
    return played


def unreadable(path: Path | None, bad: Sequence[str], good: int) -> str:
    """Return one line about the episodes of a file that cannot be read."""
    return f"{path}: {len(bad)} of {len(bad) + good} episodes cannot be read ({bad[0]})"


def _brief(t: Trajectory, path: Path, line: int, run: str, arm: str, common: str, hek: str | None, shown_as: str) -> Played:
    found = _STEP.search(t.id) if "arm" in t.extra else None
    step = int(found[1]) if found else None
    shown: Sequence[Row] = t.extra.get("shown") or ()
    lookups, tokens, seconds = (t.extra.get(key) for key in ("lookups", "completion_tokens", "seconds"))
    return Played(
        path,
        line,
        (t.question_id, sys.intern(t.question)),
        run,
        arm,
        step,
        common if step is None else f"{common} {step}",
        hek,
        shown_as,
        t.correct,
        t.score,
        frozenset(str(row["entry"]) for row in shown),
        int(t.extra.get("searches") or 0),
        None if lookups is None else int(lookups),
        sum(int(row.get("tokens") or 0) for row in shown),
        None if tokens is None else int(tokens),
        None if seconds is None else float(seconds),
        bool(t.prediction),
        t.model,
    )


def read_again(chosen: Iterable[Played]) -> dict[Played, Trajectory]:
    """Return the episodes in full."""
    wanted: dict[Path, dict[int, Played]] = defaultdict(dict)
    for played in chosen:
        wanted[played.path][played.line] = played
    found = {}
    for path, lines in wanted.items():
        for line, row in read_rows(path, surrogates=True):
            if line in lines and not isinstance(row, BadRow):
                found[lines[line]] = trajectory_of(row)
            if line >= max(lines):
                break
    return found


def pairs(played: Iterable[Played], at_most: int) -> list[tuple[Played, Played]]:
    """Return (without, with experience) of the same question and scope, one pair a question: won and lost in turn, then the rest."""
    groups: dict[tuple[str, tuple[str, str]], list[Played]] = defaultdict(list)
    for one in played:
        groups[one.scope, one.question].append(one)
    kinds: dict[tuple[bool, bool], list[tuple[Played, Played]]] = defaultdict(list)
    asked = set()
    for group in reversed(groups.values()):  # of a training, the last steps are of most interest
        with_, without = [one for one in group if one.shown], [one for one in group if not one.shown]
        if with_ and without and group[0].question not in asked:
            asked.add(group[0].question)
            pair = next(((a, b) for b in with_ for a in without if a.correct != b.correct), (without[0], with_[0]))
            kinds[pair[0].correct, pair[1].correct].append(pair)
    queues = [kinds[kind] for kind in ((False, True), (True, False))]
    mixed = [queue[i] for i in range(max(map(len, queues), default=0)) for queue in queues if i < len(queue)]
    return [*mixed, *kinds[False, False], *kinds[True, True]][:at_most]


def samples(played: Sequence[Played], each: int) -> list[Played]:
    """Return some right and some wrong episodes, those with most experience first, of the last step where there are steps."""
    last = max((one.step for one in played if one.step is not None), default=None)
    ranked = sorted((one for one in played if one.step == last), key=lambda one: -len(one.shown))
    return [one for correct in (True, False) for one in [one for one in ranked if one.correct is correct][:each]]


def outcome(played: Sequence[Played]) -> dict[str, str]:
    """Return counts, shares and means over episodes, for a table."""
    outcomes: dict[tuple[str, tuple[str, str]], set[bool]] = defaultdict(set)
    for one in played:
        outcomes[one.scope, one.question].add(one.correct)
    return {
        "episodes": f"{len(played):,}",
        "questions": f"{len({one.question for one in played}):,}",
        "right": f"{fmean(one.correct for one in played):.3f}",
        "reward": f"{fmean(one.score for one in played):.3f}",
        "answered": f"{fmean(one.answered for one in played):.2f}",
        "searches": f"{fmean(one.searches for one in played):.2f}",
        "with experience": f"{fmean(bool(one.shown) for one in played):.2f}",
        "groups with both outcomes": f"{fmean(len(seen) == 2 for seen in outcomes.values()):.2f}",
    }


MAX_CHARS = 6000  # of a message
_EXPERIENCE = re.compile(r"(<experience>.*?</experience>)", re.DOTALL)
_MARKUP = [  # on escaped text
    (re.compile(r"&lt;(search|tool_call)&gt;.*?&lt;/\1&gt;", re.DOTALL), "call"),
    (re.compile(r"&lt;answer&gt;.*?&lt;/answer&gt;", re.DOTALL), "answer"),
    (re.compile(r"&lt;think&gt;.*?&lt;/think&gt;", re.DOTALL), "think"),
]


def pair(without: Trajectory, with_: Trajectory, names: tuple[str, str]) -> str:
    """Return two episodes on one question side by side, the one without experience first; `names` say where each is from."""
    columns = "".join(
        f'<div class="side"><p>{_verdict(t)} <span class="soft">{e(name)}</span></p><p class="soft">{_result(t)}</p>{_body(t)}</div>'
        for t, name in zip((without, with_), names, strict=True)
    )
    outcome = f"{_verdict(without)} without, {_verdict(with_)} with experience"
    return (
        f'<details class="card episode"><summary>{outcome}<br><span dir="auto">{e(without.question)}</span></summary>'
        f'<div class="sides">{columns}</div></details>'
    )


def single(t: Trajectory, name: str) -> str:
    """Return one episode."""
    return (
        f'<details class="card episode"><summary>{_verdict(t)} <span class="tag">{e(name)}</span><span dir="auto">{e(t.question)}</span>'
        f'<br><span class="soft">{_result(t)}</span></summary>{_body(t)}</details>'
    )


def _verdict(t: Trajectory) -> str:
    return '<span class="good">✓ right</span>' if t.correct else '<span class="bad">✗ wrong</span>'


def _result(t: Trajectory) -> str:
    answers = " / ".join(e(answer) for answer in t.answers)
    return f"answered <b>{e(t.prediction or 'nothing')}</b>, gold <b>{answers}</b>, reward {t.score:.2f}"


def _body(t: Trajectory) -> str:
    shown = t.extra.get("shown") or ()
    entries = ", ".join(f"{e(str(row.get('level', '')).upper())} {e(row.get('entry'))} (cosine {e(row.get('score'))})" for row in shown)
    used = f'<p class="soft">Experience shown: {entries}</p>' if entries else ""
    return used + "".join(_turn(message, bool(shown)) for message in t.messages)


def _turn(message: Mapping[str, Any], shown: bool) -> str:
    role, content = str(message.get("role", "")), message.get("content")
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False) if content else ""
    calls = json.dumps(message["tool_calls"], ensure_ascii=False) if message.get("tool_calls") else ""
    if role in ("system", "tool"):
        # Only what was injected is marked: a document may have such tags, too.
        body = "".join(_piece(part, role, shown) for part in _EXPERIENCE.split(text) if part.strip())
    else:
        body = f'<p class="text" dir="auto">{_marked(_cut(text))}</p>' if text else ""
    body += f'<p class="text call">{e(_cut(calls))}</p>' if calls else ""
    return f'<div class="turn {e(role)}"><div class="who">{e(role)}</div>{body}</div>'


def _piece(part: str, role: str, shown: bool) -> str:
    """Return a piece of a system or tool message: experience in view, the rest folded."""
    if shown and _EXPERIENCE.fullmatch(part):
        return f'<div class="exp"><div class="who">injected experience</div><p class="text" dir="auto">{e(_cut(part))}</p></div>'
    text = part.strip()
    name = "prompt" if role == "system" else plural(text.count("Doc "), "document") if "Doc " in text else "message"
    summary = f'<summary class="soft">{name}, {plural(len(text), "character")}</summary>'
    return f'<details>{summary}<p class="text" dir="auto">{e(_cut(text))}</p></details>'


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]} … (and {plural(len(text) - MAX_CHARS, 'more character')})"


def _marked(text: str) -> str:
    escaped = e(text)
    for pattern, css in _MARKUP:
        escaped = pattern.sub(lambda match, css=css: f'<span class="{css}">{match.group()}</span>', escaped)
    return escaped
