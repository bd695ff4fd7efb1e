"""Which of the entries found should be shown? Simulated rollouts, whose truth is known.

    python -m benchmarks.selection [--size smoke|bench|long]

300 E1 of 30 kinds of question: half of their effects, N(0, 0.07) by kind and N(0, 0.07) by entry, are harm, and all of them grow with
the cosine (0 at 0.5, twice as large at 0.8 as at 0.65), less 0.02 for the room that an entry takes. A group has 4 rollouts without and
4 with experience; a rollout in trouble looks up more often; one look-up in ten is masked. Ten epochs; what is known is what the ledger
says after each. It can see 0.01: three banks, the standard error of a mean effect is about 0.003.

| | |
| --- | --- |
| nearest | the entry of the highest cosine (the paper) |
| nearest, harm retired | the same, without what is shown to harm (100 exposures, upper bound below 0) |
| best guess | linucb without its bound: nothing is explored |
| linucb, thompson | hiexp.tool.select |
| best | the entry of the greatest true effect, or none |

Replay: the mean effect of other policies from the log of thompson alone, each exposure weighted by 1 / p, at most 10. The best guess
is that of the first half of the epochs, the log that of the second.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks import _machine
from benchmarks._results import Claim, Panel, Result, command_line, folder_of, publish, table
from hiexp_verl.config import Budgets, Select, ToolConfig
from hiexp_verl.guide.select import Values, choose
from hiexp_verl.hek.schema import Header
from hiexp_verl.hek.store import HEK
from hiexp_verl.ledger.credit import credit
from hiexp_verl.ledger.keep import KeepConfig, leaving
from hiexp_verl.ledger.rows import Exposure, LedgerRow
from hiexp_verl.ledger.values import fit
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.types import Entry, Hit

ENTRIES, KINDS, EPOCHS = 300, 30, 10
MASK, CLIP, THRESHOLD = 0.1, 10.0, 0.6
BUDGETS = Budgets(tool=ToolConfig(min_score=THRESHOLD))
POLICIES = ("nearest", "nearest, harm retired", "best guess", "linucb", "thompson", "best")


@dataclass(frozen=True)
class Size:
    groups: int  # of an epoch
    seeds: int  # of banks


SIZES = {"smoke": Size(60, 1), "bench": Size(600, 3), "long": Size(2_000, 5)}


@dataclass(frozen=True)
class Look:
    """One look-up of the log."""

    hits: Sequence[Hit]
    effects: dict[str, float]  # true, by content id
    shown: str | None  # content id; None: nothing, or masked
    p: float
    gained: float  # reward minus baseline; 0 where nothing was shown


@dataclass
class Log:
    """The rollouts of one bank under one policy."""

    rows: list[LedgerRow] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    effects: list[float] = field(default_factory=list)  # mean true effect of a look-up, by epoch


def main() -> None:
    """Simulate, print, write."""
    arguments = command_line(__doc__).parse_args()
    machine, size = _machine.facts(), SIZES[arguments.size]
    gains: dict[str, list[list[float]]] = {policy: [] for policy in POLICIES}
    replays: list[dict[str, float]] = []
    for seed in range(size.seeds):
        for policy in POLICIES:
            log, halfway = played(seed, policy, size.groups)
            gains[policy].append(log.effects)
            print(f"{seed} {policy:22}", *(f"{value:+.3f}" for value in log.effects), flush=True)
            if policy == "thompson":
                replays.append(replay(log, halfway))
                print(f"{seed} replay", replays[-1], flush=True)
    publish("selection", machine, result_of(gains, replays), folder_of(arguments))


def bank(seed: int) -> tuple[HEK, np.ndarray]:
    """Return a HEK of E1 under one E2 for each kind, and the effect of each E1 at its best."""
    draw = np.random.default_rng(seed)
    kind_E = np.arange(ENTRIES) % KINDS
    effect_E = draw.normal(0, 0.07, KINDS)[kind_E] + draw.normal(0, 0.07, ENTRIES)
    e1 = [Entry(f"e1-{i:04d}", "e1", f"case {i}", "Do it.") for i in range(ENTRIES)]
    of_kind = [tuple(e1[i].id for i in np.flatnonzero(kind_E == kind)) for kind in range(KINDS)]
    e2 = [Entry(f"e2-{kind:04d}", "e2", f"kind {kind}", "Do it.", children=children) for kind, children in enumerate(of_kind)]
    encoder = HashEncoder(8)
    entries = (*e1, *e2)
    return HEK(Header(encoder.identity), entries, encoder.encode_passages([entry.title for entry in entries])), effect_E


def played(seed: int, policy: str, groups: int) -> tuple[Log, Values | None]:
    """Return the log of all epochs, and what is known after half of them."""
    draw, log = np.random.default_rng((seed, 1)), Log()
    hek, effect_E = bank(seed)
    values, halfway, gone = None, None, frozenset[str]()
    for epoch in range(EPOCHS):
        first = len(log.looks)
        for number in range(groups):
            play_group(draw, hek, effect_E, policy, values, gone, f"{epoch}/{number}", log)
        log.effects.append(float(np.mean([look.effects.get(look.shown or "", 0.0) for look in log.looks[first:]])))
        if policy == "nearest, harm retired":
            gone |= {hek.entry(each.id).content_id for each in leaving(hek, credit(log.rows, hek.entries).of, KeepConfig(most=1.0))}
        elif policy in ("best guess", "linucb", "thompson"):
            values = fit(log.rows, hek, BUDGETS)
        if epoch + 1 == EPOCHS // 2:
            halfway = values
    return log, halfway


def play_group(
    draw: np.random.Generator, hek: HEK, effect_E: np.ndarray, policy: str, values: Values | None, gone: frozenset[str], name: str, log: Log
) -> None:
    """Add the rollouts of one question to the log."""
    kind = int(draw.integers(KINDS))
    found = np.arange(kind, ENTRIES, KINDS)
    cosine_H = draw.uniform(0.55, 0.95, len(found))
    order = [i for i in np.argsort(-cosine_H) if cosine_H[i] >= THRESHOLD and hek.entries[found[i]].content_id not in gone]
    hits = [Hit(hek.entries[found[i]], float(cosine_H[i])) for i in order]
    effects = {hek.entries[found[i]].content_id: float(effect_E[found[i]] * (cosine_H[i] - 0.5) / 0.3 - 0.02) for i in order}
    chosen = first_of(policy, hits, effects, values, name)
    p_question, baseline = draw.beta(1.2, 2.0), 0.0
    for session, trouble in enumerate(draw.random(8)):
        guided, p = session >= 4, p_question - 0.2 * (trouble - 0.5)
        looks_up, masked = guided and draw.random() < 0.25 + 0.6 * trouble, draw.random() < MASK
        seen = (_exposure(chosen),) if looks_up and chosen is not None else ()
        shown, hidden = ((), seen) if masked else (seen, ())
        reward = float(draw.random() < np.clip(p + sum(effects[each["content"]] for each in shown), 0.02, 0.98))
        log.rows.append(LedgerRow(0, name, session, "v1", "full" if guided else "none", reward, shown, hidden))
        if looks_up:
            content = shown[0]["content"] if shown else None
            log.looks.append(Look(hits, effects, content, chosen.p if chosen is not None else 1.0, reward - baseline))
        elif not guided:
            baseline += reward / 4


def _exposure(hit: Hit) -> Exposure:
    return Exposure(content=hit.entry.content_id, level="e1", place="tool", search=1, score=hit.score, p=hit.p * (1 - MASK))


def first_of(policy: str, hits: Sequence[Hit], effects: dict[str, float], values: Values | None, name: str) -> Hit | None:
    """Return the entry that a policy shows, None: nothing."""
    if policy == "best":
        return max((hit for hit in hits if effects[hit.entry.content_id] > 0), key=lambda hit: effects[hit.entry.content_id], default=None)
    if values is None or "tool" not in values.places:
        return next(iter(hits), None)
    select: Select = "thompson" if policy == "thompson" else "linucb"
    draw = "" if policy == "best guess" else name
    return next(iter(choose(hits, select, values.places["tool"], values.known, 1, THRESHOLD, draw)), None)


def replay(log: Log, halfway: Values | None) -> dict[str, float]:
    """Return the mean effect of showing the nearest, and the best guess, as the log of another policy estimates it, and the truth."""
    bias = credit(log.rows).bias["tool"][0]
    looks = log.looks[len(log.looks) // 2 :]
    found: dict[str, float] = {}
    for policy, known in (("nearest", None), ("best guess", halfway)):
        estimates, truths = [], []
        for look in looks:
            hit = first_of(policy, look.hits, look.effects, known, "")
            agrees = hit is not None and hit.entry.content_id == look.shown
            estimates.append(min(CLIP, 1 / (look.p * (1 - MASK))) * (look.gained - bias) if agrees else 0.0)
            truths.append(look.effects[hit.entry.content_id] if hit is not None else 0.0)
        found |= {policy: float(np.mean(estimates)), f"{policy}, truth": float(np.mean(truths))}
        found[f"{policy}, error"] = float(np.std(estimates) / np.sqrt(len(estimates)))
    return found


def result_of(gains: dict[str, list[list[float]]], replays: list[dict[str, float]]) -> Result:
    """Return the claims and the tables."""
    late = {policy: float(np.mean([row[EPOCHS // 2 :] for row in rows])) for policy, rows in gains.items()}
    regret = {policy: late["best"] - value for policy, value in late.items()}
    what = "Reward that the choice of E1 misses, in the second half of the epochs"
    claims = [
        Claim(f"{what} ({ours})", "reward", "less", regret[ours], name, regret[name])
        for ours in ("linucb", "thompson")
        for name in ("nearest", "nearest, harm retired")
    ]
    rows = [[policy, *(f"{value:+.3f}" for value in np.mean(gains[policy], axis=0)), f"{late[policy]:+.4f}"] for policy in POLICIES]
    heads = ["mean true effect of a look-up in epoch", *(str(epoch + 1) for epoch in range(EPOCHS)), "second half"]
    keys = ("nearest", "best guess")
    replayed = [
        [str(seed), key, f"{found[key]:+.3f}", f"{1.96 * found[f'{key}, error']:.3f}", f"{found[f'{key}, truth']:+.3f}"]
        for seed, found in enumerate(replays)
        for key in keys
    ]
    text = [
        *table(heads, rows, numbers=set(range(1, EPOCHS + 2))),
        "",
        "What the log of thompson says of other policies:",
        "",
        *table(["bank", "policy", "estimate", "95%: more or less", "truth"], replayed, numbers={2, 3, 4}),
    ]
    lines = {policy: [(epoch + 1.0, float(value)) for epoch, value in enumerate(np.mean(gains[policy], axis=0))] for policy in POLICIES}
    raw: dict[str, Any] = {"effects": gains, "replays": replays}
    return Result("Which of the entries found is shown", claims, [Panel("epoch", "mean effect", lines, ratio=True)], raw, text)


if __name__ == "__main__":
    main()
