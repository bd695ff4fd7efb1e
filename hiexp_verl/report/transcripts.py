"""Episodes in full, alone or side by side; what was injected is marked, documents are folded."""

import json
import re
from collections.abc import Mapping
from typing import Any

from hiexp_verl.report.markup import e, plural
from hiexp_verl.types import Trajectory

MAX_CHARS = 6000  # of a message; a policy that has gone astray writes until it is stopped
_EXPERIENCE = re.compile(r"(<experience>.*?</experience>)", re.DOTALL)
_SPOKEN = [  # on escaped text
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
    told = ", ".join(f"{e(str(row.get('level', '')).upper())} {e(row.get('entry'))} (cosine {e(row.get('score'))})" for row in shown)
    used = f'<p class="soft">Experience shown: {told}</p>' if told else ""
    return used + "".join(_turn(message, bool(shown)) for message in t.messages)


def _turn(message: Mapping[str, Any], shown: bool) -> str:
    role, content = str(message.get("role", "")), message.get("content")
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False) if content else ""
    calls = json.dumps(message["tool_calls"], ensure_ascii=False) if message.get("tool_calls") else ""
    if role in ("system", "tool"):
        # Only what was injected is marked: a document may have such tags, too.
        body = "".join(_told(part, role, shown) for part in _EXPERIENCE.split(text) if part.strip())
    else:
        body = f'<p class="text" dir="auto">{_spoken(_cut(text))}</p>' if text else ""
    body += f'<p class="text call">{e(_cut(calls))}</p>' if calls else ""
    return f'<div class="turn {e(role)}"><div class="who">{e(role)}</div>{body}</div>'


def _told(part: str, role: str, shown: bool) -> str:
    """Return a piece of a system or tool message: experience in view, the rest folded."""
    if shown and _EXPERIENCE.fullmatch(part):
        return f'<div class="exp"><div class="who">injected experience</div><p class="text" dir="auto">{e(_cut(part))}</p></div>'
    text = part.strip()
    name = "prompt" if role == "system" else plural(text.count("Doc "), "document") if "Doc " in text else "message"
    summary = f'<summary class="soft">{name}, {plural(len(text), "character")}</summary>'
    return f'<details>{summary}<p class="text" dir="auto">{e(_cut(text))}</p></details>'


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]} … (and {plural(len(text) - MAX_CHARS, 'more character')})"


def _spoken(text: str) -> str:
    escaped = e(text)
    for pattern, css in _SPOKEN:
        escaped = pattern.sub(lambda match, css=css: f'<span class="{css}">{match.group()}</span>', escaped)
    return escaped
