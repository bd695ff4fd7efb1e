"""The report of an evolution: its rounds, what came, what went; a damaged table is a fault and not a traceback."""

import json

import pytest

from hiexp_verl.io.manifest import Manifest, read_manifest
from hiexp_verl.report.evolutions import evolutions, read_evolution
from hiexp_verl.report.page import page
from hiexp_verl.report.runs import gather
from tests.support.runs import write_training

CAME = {"content": "0a", "level": "e2", "title": "<b>When</b>", "description": "Search it.", "why": ""}
WENT = {**CAME, "content": "0b", "title": "A case", "why": "retired: its effect is -0.200"}
TESTED = {
    "number": 2,
    "incumbent": "0001",
    "candidate": "0002",
    "came": [CAME],
    "went": [WENT],
    "why": "1 entries came, 1 went",
    "verdict": {"decision": "accept", "look": 50, "groups": 50, "difference": 0.25, "error": 0.05, "rule": "strict", "detectable": 0.1},
    "rollouts": 300,
    "rewards": {"none": 0.1, "incumbent": 0.2, "candidate": 0.45},
}
FIRST = {**TESTED, "number": 1, "candidate": None, "came": [], "went": [], "verdict": None, "rewards": {"none": 0.1, "incumbent": 0.2}}


def write(folder, rounds):
    folder.mkdir(parents=True, exist_ok=True)
    Manifest(kind="evolution", spec={}).finish(folder)
    (folder / "table.json").write_text(json.dumps({"rounds": rounds}))


def test_rounds_gains_and_changes_are_on_the_page(tmp_path):
    write(tmp_path / "evolve", [FIRST, TESTED])
    text = page(gather([tmp_path]), "all")
    assert '<a href="#evolution">' in text
    assert "<b>accept</b> after 50 groups" in text
    assert "+0.250" in text and "[+0.152, +0.348]" in text  # 0.25 -+ 1.96 * 0.05
    assert "Round 2, candidate 0002: accept" in text and "retired: its effect is -0.200" in text
    assert "&lt;b&gt;When&lt;/b&gt;" in text and "<b>When</b>" not in text


@pytest.mark.parametrize(
    "rounds",
    [
        5,
        [5],
        [{"number": 1}],
        [{**TESTED, "verdict": "accept"}],
        [{**TESTED, "came": [1]}],
        [{**TESTED, "verdict": {**TESTED["verdict"], "difference": "0.25"}}],
        [{**TESTED, "rewards": {"none": 10**400}}],
    ],
)
def test_a_damaged_table_is_a_fault(tmp_path, rounds):
    write(tmp_path / "evolve", rounds)
    faults = []
    assert read_evolution("evolve", tmp_path / "evolve", faults).rounds == [] and len(faults) == 1


def test_a_first_round_that_is_not_finished_says_so(tmp_path):
    assert "No round is finished yet" in evolutions([read_evolution("evolve", tmp_path, [])])
    assert evolutions([]) == ""


def test_what_the_loop_of_a_training_did_is_on_the_page(tmp_path):
    write_training(tmp_path / "run", {1: 0.1, 2: 0.2})
    read_manifest(tmp_path / "run").finish(tmp_path / "run")
    verdict = {"difference": 0.25, "error": 0.05, "look": 16, "decision": "accept"}
    rows = [
        {"step": 1, "event": "failed", "why": "<b>out of memory</b>"},
        {"step": 2, "event": "accept", "version": "/hek/0002", "verdict": verdict},
        {"step": 3, "event": "no difference", "version": "/hek/0003", "verdict": {**verdict, "error": None}},
    ]
    (tmp_path / "run" / "hek_loop.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "[]\n")
    found = gather([tmp_path])
    text = page(found, "all")
    assert "<b>accept</b>" in text and "+0.250" in text and "0002" in text
    assert "&lt;b&gt;out of memory" in text and any("hek_loop.jsonl" in fault for fault in found.faults)
