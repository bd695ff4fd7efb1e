"""The experience banks of other programs become a HEK of flat entries."""

import json

import pytest

from hiexp_verl.cli import main
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.store import HEK
from hiexp_verl.importers.bank import import_bank
from hiexp_verl.models.encoder import HashEncoder

ROWS = {
    "evolver": [
        {
            "principle_id": "p1",
            "description": "Search the author first.",
            "principle_type": "guiding",
            "usage_count": 3,
            "success_count": 2,
        },
        {"principle_id": "p2", "description": "Never guess a date.", "principle_type": "cautionary"},
        {"principle_id": "p3", "description": "search the author first"},
    ],
    "reme": [{"memory_id": "m1", "when_to_use": "When a book is described", "content": "Search the author first.", "score": 0.9}],
    "reasoningbank": [
        {
            "task_id": "1",
            "status": "failure",
            "memory_items": [
                "# Memory Item 1\n## Title Author first\n## Description Of books.\n## Content Search the author first.\n## Title Two\n## Content Second."
            ],
        }
    ],
}


@pytest.mark.parametrize(
    ("format", "entries"),
    [
        (
            "evolver",
            [
                ("Search the author first.", "Search the author first.", "guide", {"right": 2, "wrong": 1}),
                ("Never guess a date.", "Never guess a date.", "pitfall", {}),
            ],
        ),
        ("reme", [("When a book is described", "Search the author first.", "guide", {})]),
        ("reasoningbank", [("Author first", "Search the author first", "pitfall", {}), ("Two", "Second", "pitfall", {})]),
    ],
)
def test_a_bank_of_json_lines_is_read(tmp_path, format, entries):
    path = tmp_path / "bank.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS[format]))
    hek, _ = import_bank(path, format, HashEncoder())
    assert [(e.title, e.description, e.kind, e.counters) for e in hek.entries] == entries
    assert {e.level for e in hek.entries} == {"e2"} and {e.tags for e in hek.entries} == {("imported",)}
    assert hek.header.distiller == f"imported from {format}"


def test_the_one_object_of_youtu_agent_is_read_by_the_command_and_saved(tmp_path, capsys):
    path = tmp_path / "bank.json"
    long = "Name it first. " * 40
    path.write_text(json.dumps({"G0": "[Two things asked]. Search each. <|im_start|>system", "G1": "Name first.", "G2": long}))
    command = ["import-bank", str(path), "--format", "youtu", "--encoder", "hash:64", "--out", str(tmp_path / "hek"), "--level", "e3"]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "3 items" in told and "1 shortened" in told and "3 E3 in" in told
    hek = HEK.load(tmp_path / "hek")
    assert [(e.title, e.description) for e in hek.entries[:2]] == [
        ("Two things asked", "Search each. system"),
        ("Name first.", "Name first."),
    ]
    assert hek.entries[2].description == " ".join(["Name it first."] * 21)
    assert main(["retrieve", str(tmp_path / "hek"), "two things"]) == 0


@pytest.mark.parametrize(
    ("format", "content", "said"),
    [
        ("evolver", '{"text": "a"}', "no field 'description'"),
        ("evolver", '{"description": "a", "usage_count": 1, "success_count": 2}', "must be whole numbers"),
        ("reme", '{"content": "a"}', "no field 'when_to_use'"),
        ("reasoningbank", '{"memory_items": ["free text"]}', "none of the headings"),
        ("reasoningbank", '{"memory_items": "a"}', "must be a list"),
        ("youtu", "[1]", "not one JSON object"),
        ("youtu", "{}", "holds no experience"),
        ("youtu", '{"G0": 7}', "'G0' must be a text"),
        ("evolver", "", "is empty"),
    ],
)
def test_another_file_is_refused_with_the_formats(tmp_path, format, content, said):
    (tmp_path / "bank").write_text(content)
    with pytest.raises(HiExpError, match=said):
        import_bank(tmp_path / "bank", format, HashEncoder())
    with pytest.raises(HiExpError, match="does not exist"):
        import_bank(tmp_path / "none", format, HashEncoder())


@pytest.mark.parametrize(
    "items",
    [
        ["# Memory Item 1\n## Title: A\n## Content: First.", "# Memory Item 2\n## Title B\n## Content Second."],
        "# Memory Item 1\n## Title A\n## Content First.\n\n# Memory Item 2\n## Title B\n## Content Second.",
        [{"title": "A", "content": "First"}, {"title": "B", "description": "Second"}],
    ],
)
@pytest.mark.parametrize(
    ("status", "kind"), [("success", "guide"), (True, "guide"), (1, "guide"), (None, "guide"), ("fail", "pitfall"), (0, "pitfall")]
)
def test_memory_items_and_how_the_task_ended_may_be_written_in_several_ways(tmp_path, items, status, kind):
    path = tmp_path / "bank.json"
    path.write_text(json.dumps([{"status": status, "memory_items": items}]))
    hek, _ = import_bank(path, "reasoningbank", HashEncoder())
    assert [(e.title, e.description, e.kind) for e in hek.entries] == [("A", "First", kind), ("B", "Second", kind)]


def test_counters_may_be_written_with_a_point(tmp_path):
    path = tmp_path / "bank.jsonl"
    path.write_text(json.dumps({"description": "Search first.", "usage_count": 3.0, "success_count": 2.0}) + "\n")
    assert import_bank(path, "evolver", HashEncoder())[0].entries[0].counters == {"right": 2, "wrong": 1}
