"""What the rounds of an evolution did, as a table and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hiexp_verl.evolve.propose import Change, Proposal
from hiexp_verl.io.files import atomic_writer
from hiexp_verl.ledger.credit import Z95
from hiexp_verl.ledger.gate import Verdict

TABLE_MD, TABLE_JSON = "table.md", "table.json"
_VERSIONS = ("none", "incumbent", "candidate")
_HEADS = ("round", "in use", "candidate", "came", "went", "decision", "groups", "gain", "95% interval", *_VERSIONS, "rollouts")
OPTIONAL = ("drafts", "lost", "rewritten")  # of a round: there with the options that bring them


@dataclass(frozen=True)
class Screened:
    """A draft of a candidate, and what it earned on the questions of the screening."""

    version: str
    reward: float  # mean
    rollouts: int


@dataclass(frozen=True)
class Round:
    """What a round did."""

    number: int
    incumbent: str  # name of the version in use when it began
    candidate: str | None  # name of the version that was tested
    proposal: Proposal
    verdict: Verdict | None
    questions: int
    rollouts: int
    completion_tokens: int
    rewards: dict[str, float]  # mean reward without experience, with the incumbent, with the candidate
    detectable: float | None = None  # gain that the test could see in 80 of 100 cases, as it was known before; None: it was not
    drafts: tuple[Screened, ...] = ()  # that the candidate was chosen from
    lost: tuple[Change, ...] = ()  # entries that came with a candidate that lost narrowly, and are not proposed again
    rewritten: tuple[Change, ...] = ()  # what is proposed in their place

    @property
    def accepted(self) -> bool:
        """Whether the candidate is in use from here on."""
        return self.verdict is not None and self.verdict.decision == "accept"

    def to_json(self) -> dict[str, Any]:
        """Return the round as a JSON object."""
        own = {name: value for name, value in vars(self).items() if name not in ("proposal", "verdict", *OPTIONAL)}
        own |= {name: [asdict(each) for each in found] for name in OPTIONAL if (found := getattr(self, name))}
        changes = {name: [asdict(each) for each in getattr(self.proposal, name)] for name in ("came", "went")}
        return {**own, **changes, "why": self.proposal.why, "verdict": self.verdict.to_json() if self.verdict else None}


def in_one_line(done: Round) -> str:
    """Return a round for the log."""
    return ", ".join(f"{head} {cell}" for head, cell in zip(_HEADS, _cells(done), strict=True) if cell)


def write_table(out: Path, rounds: Sequence[Round]) -> None:
    """Write table.json and table.md, atomically."""
    with atomic_writer(out / TABLE_JSON) as file:
        file.write(json.dumps({"rounds": [each.to_json() for each in rounds]}, ensure_ascii=False, indent=1) + "\n")
    with atomic_writer(out / TABLE_MD) as file:
        file.write(as_markdown(rounds) + "\n")


def as_markdown(rounds: Sequence[Round]) -> str:
    """Return a row for each round, and below what came, what went, and why."""
    lines = [f"| {' | '.join(row)} |" for row in (_HEADS, ["---:"] * len(_HEADS), *map(_cells, rounds))]
    for done in rounds:
        power = f" The test can see a gain of {done.detectable:.3f} in 80 of 100 cases, by its last look." if done.detectable else ""
        lines += ["", f"Round {done.number}: {done.proposal.why}.{power}"]
        if done.drafts:
            lines.append("Drafts, by mean reward: " + ", ".join(f"{each.version} {each.reward:.3f}" for each in done.drafts) + ".")
        changed = {"+": done.proposal.came, "-": done.proposal.went, "lost": done.lost, "rewritten": done.rewritten}
        for sign, changes in changed.items():
            lines += [
                f"- `{sign}` {each.level.upper()} **{each.title}** {each.description} {f'({each.why})' * bool(each.why)}"
                for each in changes
            ]
    return "\n".join(lines)


def _cells(done: Round) -> list[str]:
    verdict, changes = done.verdict, (str(len(done.proposal.came)), str(len(done.proposal.went)))
    tested = ["", "", "", ""]
    if verdict is not None:
        low, high = (verdict.difference + sign * Z95 * verdict.error for sign in (-1, 1))
        tested = [verdict.decision, str(verdict.look), f"{verdict.difference:+.3f}", f"{low:+.3f} to {high:+.3f}"]
    rewards = [f"{done.rewards[each]:.3f}" if each in done.rewards else "" for each in _VERSIONS]
    return [str(done.number), done.incumbent, done.candidate or "", *changes, *tested, *rewards, str(done.rollouts)]
