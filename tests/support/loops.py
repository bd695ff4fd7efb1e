"""A loop of a training whose builder returns what a test says, and whose rollouts earn what it says."""

import json
from dataclasses import replace

from hiexp_verl.config import GateConfig, HiExpConfig, LedgerConfig, LoopConfig
from hiexp_verl.evolve.background import Candidate
from hiexp_verl.hek import HEK
from hiexp_verl.ledger.rows import LEDGER, LedgerRow, append_rows
from hiexp_verl.plugin import loop as module
from hiexp_verl.plugin.loop import Loop, Version
from tests.support.peaks import start

GATE = GateConfig(rule="strict", min_groups=10)
OLD_HEK = start()
NEW_HEK = replace(OLD_HEK, header=replace(OLD_HEK.header, reason="new"))
NEW_HASH = NEW_HEK.content_hash()


def loop_of(tmp_path, monkeypatch, **block):
    """Return a loop whose builder returns what `made` holds, or raises it; `made`; its file of the ledger; its settings."""
    OLD_HEK.save(tmp_path / "hek")
    hek = HEK.load(tmp_path / "hek")
    new = Version(str(NEW_HEK.save(tmp_path / "hek", candidate=True)), NEW_HASH)
    made = {"new": new, "result": Candidate(*new, came=("0a",), why="1 entries came, 0 went"), "started": []}
    monkeypatch.setattr(Loop, "_start", lambda self, step: made["started"].append(step) or step)
    monkeypatch.setattr(module.ray, "wait", lambda refs, timeout: (refs if made["result"] is not None else [], []))
    monkeypatch.setattr(module.ray, "cancel", lambda ref, force: None)

    def get(ref):
        if isinstance(made["result"], Exception):
            raise made["result"]
        return made["result"]

    monkeypatch.setattr(module.ray, "get", get)
    settings = HiExpConfig(
        hek=str(tmp_path / "hek" / "0001"),
        hek_hash=hek.header.content_hash,
        dump_dir=str(tmp_path / "dump"),
        ledger=LedgerConfig(enabled=True),
        loop=LoopConfig(**{"enabled": True, "every": 4, "lag": 1, "gate": GATE, "max_steps": 6, **block}),
    )
    ledger = tmp_path / "hek" / LEDGER / "run.jsonl"
    return Loop(settings, tmp_path, ledger, ()), made, ledger, settings


def rows(step, old, new, incumbent, groups=5):
    found = []
    for number in range(groups):
        found += [LedgerRow(step, f"q{number}", 0, incumbent, "full", old), LedgerRow(step, f"q{number}", 1, NEW_HASH, "full", new)]
    return found


def events(loop):
    return [json.loads(line)["event"] for line in loop._events.read_text().splitlines()]


def trained(loop, ledger, steps, old=0.0, new=1.0, alarmed=False):
    metrics = {}
    for step in steps:
        loop.begin(step)
        trained_on = rows(step, old, new, loop.state.incumbent.content_hash) if loop.state.candidate is not None else []
        append_rows(ledger, trained_on)
        metrics = loop.step(step, trained_on, alarmed)
    return metrics
