"""`hiexp ledger` and what it adds to `inspect` and the page."""

import json
from dataclasses import replace

import pytest

from hiexp_verl.cli import main
from hiexp_verl.hek import HEK
from hiexp_verl.hek.versions import versions
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.ledger.rows import LEDGER, LedgerRow, append_rows, read_ledger
from tests.support.factories import trajectory
from tests.support.heks import tree


@pytest.fixture
def root(tmp_path):
    tree().save(tmp_path / "hek")
    return tmp_path / "hek"


def trained(root, rewards=(0.0, 0.0), groups=120, entry="e1-0001", unguided=(0.0, 1.0)):
    """Two guided rollouts a group with these rewards, beside unguided ones of 0 and 1."""
    hek = HEK.load(root)
    seen = {"content": hek.entry(entry).content_id, "level": "e1", "place": "tool", "score": 0.9, "p": 0.9}
    rows = []
    for number in range(groups):
        key = {"step": 1, "group": f"q{number}", "hek": hek.header.content_hash}
        rows += [LedgerRow(session=i, arm="none", reward=reward, **key) for i, reward in enumerate(unguided)]
        rows += [LedgerRow(session=2 + i, arm="full", reward=reward, shown=(seen,), **key) for i, reward in enumerate(rewards)]
    append_rows(root / LEDGER / "run.jsonl", rows)


def test_the_table_names_effects_with_intervals(root, capsys):
    trained(root, rewards=(1.0, 1.0))
    assert main(["ledger", str(root)]) == 0
    text = capsys.readouterr().out
    row = next(line for line in text.splitlines() if line.strip().startswith("e1-0001")).split()
    assert row[:6] == ["e1-0001", "240", "120", "1.000", "0.500", "+0.500"] and row[6] == "+0.500"
    assert "480 rollouts" in text and "nothing was left out by chance" in text and "1 entries help, 0 harm" in text


def test_versions_that_were_shown_are_compared_with_no_experience(root, capsys):
    trained(root, rewards=(1.0, 1.0))
    assert "by version" not in (main(["ledger", str(root)]), capsys.readouterr().out)[1]
    rows = [LedgerRow(2, f"q{i}", j, "next", arm, 0.5) for i in range(2) for j, arm in enumerate(("none", "full"))]
    append_rows(root / LEDGER / "run2.jsonl", rows)
    assert main(["ledger", str(root)]) == 0
    first, second = capsys.readouterr().out.partition("by version:\n")[2].splitlines()
    assert "steps 1 to 1, 120 groups: reward 1.000 with experience, +0.500 [+0.500, +0.500] more than without" in first
    assert second.strip().startswith("next  steps 2 to 2, 2 groups: reward 0.500 with experience, +0.000")
    assert main(["ledger", str(root), "--json"]) == 0
    assert [each["gap"] for each in json.loads(capsys.readouterr().out)["versions"]] == [0.5, 0.0]


def test_json_has_every_number(root, capsys):
    trained(root)
    assert main(["ledger", str(root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (entry,) = found["entries"]
    assert (entry["entry"], entry["effect"], entry["groups"]) == ("e1-0001", -0.5, 120) and entry["high"] < 0
    assert found["not_shown"] == 5 and found["masked"] == {"prompt": 0, "tool": 0}


def test_what_harms_leaves_as_a_new_version_and_nothing_is_deleted(root, capsys):
    trained(root)
    assert main(["ledger", str(root), "--retire"]) == 0
    assert "e1-0001  retired: its effect is -0.5" in capsys.readouterr().out
    first, second = versions(root)
    assert second.is_current and second.levels["e1"] == first.levels["e1"] - 1 and "retired" in second.reason
    assert main(["ledger", str(root), "--retire"]) == 0
    assert "nothing was changed" in capsys.readouterr().out and len(versions(root)) == 2


def test_episodes_of_an_evaluation_are_counted_without_a_ledger(root, tmp_path, capsys):
    seen = {
        "entry": "e1-0001",
        "content": HEK.load(root).entry("e1-0001").content_id,
        "level": "e1",
        "score": 0.9,
        "place": "tool",
        "tokens": 3,
    }
    played = []
    for number in range(8):
        played.append(trajectory(f"q{number}", False, extra={"arm": "none"}))
        played.append(trajectory(f"q{number}", True, extra={"arm": "full", "sample": 1, "shown": [seen]}))
    write_jsonl(tmp_path / "episodes.jsonl", played)
    assert main(["ledger", str(root), "--episodes", str(tmp_path / "episodes.jsonl")]) == 0
    assert "+0.900" in capsys.readouterr().out


def test_inspect_and_the_page_show_the_effect(root, tmp_path, capsys):
    trained(root)
    assert main(["inspect", str(root), "e1-0001"]) == 0
    assert "effect:      -0.5" in capsys.readouterr().out
    assert main(["inspect", str(root), "--html", str(tmp_path / "page.html")]) == 0
    assert '"effect":"-0.5' in (tmp_path / "page.html").read_text()


def test_without_rollouts_it_says_what_to_do(root, capsys):
    assert main(["ledger", str(root)]) == 2
    assert "has no rollouts; train with hiexp.ledger.enabled=true" in capsys.readouterr().err


def test_a_merge_adds_the_ledgers_of_both(root, tmp_path, capsys):
    trained(root)
    other = tree()
    more = HEK(
        other.header, (*other.entries[:-1], replace(other.entries[-1], description="Another last word.")), other.vectors_E_D, other.sources
    )
    more.save(tmp_path / "other")
    append_rows(tmp_path / "other" / LEDGER / "run.jsonl", [LedgerRow(1, "q0", 0, "v", "none", 0.0)])
    assert main(["merge", str(root), str(tmp_path / "other"), "--out", str(tmp_path / "both"), "--encoder", "hash:128"]) == 0
    assert "the ledgers of 2 runs are in" in capsys.readouterr().out
    assert len(read_ledger(tmp_path / "both")) == len(read_ledger(root)) + 1
