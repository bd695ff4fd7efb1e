"""Episodes: of thousands only the records are kept in memory, the few that are shown in full are read again."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from pathlib import Path
from statistics import fmean
from typing import Any

from hiexp_verl.guide.record import EpisodeRecord, aggregate
from hiexp_verl.io.datasets import trajectory_of
from hiexp_verl.io.rows import BadRow, read_rows
from hiexp_verl.protocol import documents_in
from hiexp_verl.report.find import flat, read_lines
from hiexp_verl.report.html import e, number, plural
from hiexp_verl.types import Trajectory

_STEP = re.compile(r"@(\d+)$")  # our trainer ends the ids of its dump so
_EXPERIENCE_SETTINGS = re.compile(r"hek|arm|(prompt|tool)\..+")  # in which episodes that are compared may differ
_MISPLACED = ("random", "shuffled")  # arms whose entries do not fit the question


@dataclass(frozen=True, eq=False)
class Played:
    """An episode in brief."""

    path: Path
    line: int
    id: str
    run: str  # the training, evaluation or rollout that it belongs to
    step: int | None  # of a training
    scope: str  # episodes on one question and of one scope differ in the experience alone, and may be compared
    hek: str  # content hash; "" where it is not known
    correct: bool
    score: float
    answered: bool
    shown: frozenset[str]  # ids of entries
    record: EpisodeRecord  # without messages

    @property
    def question(self) -> tuple[str, str]:
        """Id and text: two data sets may have the same ids."""
        return self.record.question_id, self.record.question

    @property
    def misplaced(self) -> bool:
        """Whether its experience was chosen not to fit the question."""
        return self.record.arm in _MISPLACED


def read_played(path: Path, run: str, settings: Mapping[str, Any], hek: str, faults: list[str]) -> list[Played]:
    """Read a file of episodes.

    Args:
        settings: how they were played; episodes with the same settings, apart from experience, can be compared.
        hek: what they were shown of, where the settings do not say it.
    """
    scope = json.dumps({key: value for key, value in flat(settings).items() if not _EXPERIENCE_SETTINGS.fullmatch(key)}, sort_keys=True)

    def brief(line: int, row: dict[str, Any]) -> Played:
        t = trajectory_of(row)
        record = replace(EpisodeRecord.of(t), messages=(), queries=())
        found = _STEP.search(t.id) if "arm" in t.extra else None
        step = int(found[1]) if found else None
        shown = frozenset(row["entry"] for row in record.shown)
        of_hek = settings.get("hek") or hek
        return Played(path, line, t.id, run, step, f"{scope} {step}", of_hek, t.correct, t.score, bool(t.prediction), shown, record)

    played = read_lines(path, brief, faults)
    # Of a rollout, as a resumed one: an id that two runs wrote counts once. A step of a training may play a question in two groups.
    last = {one.id: one for one in played}
    return [one for one in played if one.step is not None or last[one.id] is one]


def read_again(chosen: Iterable[Played]) -> dict[Played, Trajectory]:
    """Return the episodes in full."""
    wanted: dict[Path, dict[int, list[Played]]] = defaultdict(lambda: defaultdict(list))
    for played in chosen:
        wanted[played.path][played.line].append(played)  # two runs may name one file
    found = {}
    for path, lines in wanted.items():
        for line, row in islice(read_rows(path, surrogates=True), max(lines)):
            if line in lines and not isinstance(row, BadRow):
                found |= dict.fromkeys(lines[line], trajectory_of(row))
    return found


def by_question(played: Iterable[Played]) -> list[list[Played]]:
    """Return groups of episodes that may be compared: one question, one scope."""
    groups: dict[tuple[str, tuple[str, str]], list[Played]] = defaultdict(list)
    for one in played:
        groups[one.scope, one.question].append(one)
    return list(groups.values())


def pairs(played: Iterable[Played], at_most: int) -> list[tuple[Played, Played]]:
    """Return (without, with experience) of the same question and scope, one pair a question: won and lost in turn, then the rest."""
    kinds: dict[tuple[bool, bool], list[tuple[Played, Played]]] = defaultdict(list)
    asked = set()
    for group in reversed(by_question(played)):  # of a training, the last steps are of most interest
        with_, without = [one for one in group if one.shown], [one for one in group if not one.shown]
        if with_ and without and group[0].question not in asked:
            asked.add(group[0].question)
            pair = next(((a, b) for b in with_ for a in without if a.correct != b.correct), (without[0], with_[0]))
            kinds[pair[0].correct, pair[1].correct].append(pair)
    in_turn = [pair for both in zip_longest(kinds[False, True], kinds[True, False]) for pair in both if pair]
    return [*in_turn, *kinds[False, False], *kinds[True, True]][:at_most]


def samples(played: Sequence[Played], each: int) -> list[Played]:
    """Return some right and some wrong episodes of the last step, of many questions; those with most experience first."""
    last = max((one.step for one in played if one.step is not None), default=None)
    ranked = sorted((one for one in played if one.step == last), key=lambda one: -len(one.shown))
    sides = [by_question(one for one in ranked if one.correct is correct) for correct in (True, False)]
    return [one for groups in sides for one in [one for row in zip_longest(*groups) for one in row if one][:each]]


def outcome(played: Sequence[Played]) -> dict[str, str]:
    """Return counts, shares and means over episodes, for a table."""
    totals = aggregate(one.record for one in played)
    seconds = [one.record.seconds for one in played if one.record.seconds is not None]
    means = {
        "right": fmean(one.correct for one in played),
        "reward": fmean(one.score for one in played),
        "answered": fmean(one.answered for one in played),
        "groups with both outcomes": fmean(len({one.correct for one in group}) == 2 for group in by_question(played)),
        "with experience": totals.mean("guided"),
        "experience tokens": totals.mean("experience_tokens"),
        "searches": totals.mean("searches"),
        "look-ups": totals.mean("lookups"),
    }
    means |= {"policy tokens": totals.mean("completion_tokens")} if totals.completion_tokens else {}
    means |= {"seconds": fmean(seconds)} if seconds else {}
    counts = {"episodes": len(played), "questions": len({one.question for one in played})}
    return {name: number(value) for name, value in (counts | means).items()}


MAX_CHARS = 6000  # of a message
_EXPERIENCE = re.compile(r"(<experience>.*?</experience>)", re.DOTALL)
_MARKUP = [  # on escaped text
    (re.compile(r"&lt;(search|tool_call)&gt;.*?&lt;/\1&gt;", re.DOTALL), "call"),
    (re.compile(r"&lt;answer&gt;.*?&lt;/answer&gt;", re.DOTALL), "answer"),
    (re.compile(r"&lt;think&gt;.*?&lt;/think&gt;", re.DOTALL), "think"),
]


def pair(without: Trajectory, with_: Trajectory, names: tuple[str, str]) -> str:
    """Return two episodes on one question side by side, the one without experience first; `names` say where each is from."""
    return side_by_side((without, with_), names, f"{_verdict(without)} without, {_verdict(with_)} with experience")


def side_by_side(both: tuple[Trajectory, Trajectory], names: tuple[str, str], outcome: str) -> str:
    """Return two episodes on one question side by side, under what there is to say of them."""
    columns = "".join(
        f'<div class="side"><p>{_verdict(t)} <span class="soft">{e(name)}</span></p><p class="soft">{_result(t)}</p>{_body(t)}</div>'
        for t, name in zip(both, names, strict=True)
    )
    return (
        f'<details class="card episode"><summary>{outcome}<br><span dir="auto">{e(both[0].question)}</span></summary>'
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
    documents = documents_in(text)
    name = "prompt" if role == "system" else plural(len(documents), "document") if documents else "message"
    summary = f'<summary class="soft">{name}, {plural(len(text), "character")}</summary>'
    return f'<details>{summary}<p class="text" dir="auto">{e(_cut(text))}</p></details>'


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]} … (and {plural(len(text) - MAX_CHARS, 'more character')})"


def _marked(text: str) -> str:
    escaped = e(text)
    for pattern, css in _MARKUP:
        escaped = pattern.sub(lambda match, css=css: f'<span class="{css}">{match.group()}</span>', escaped)
    return escaped
