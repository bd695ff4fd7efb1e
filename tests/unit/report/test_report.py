"""The page is complete, harmless whatever a model wrote, and of a size that opens on a phone."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexp_verl.cli import main
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.io.manifest import MANIFEST, Manifest, read_manifest
from hiexp_verl.report.tree import MAX_CHILDREN
from tests.support.factories import trajectory
from tests.support.heks import e, hek, tree
from tests.support.report_pages import Tags, episode, everything, page
from tests.support.runs import (
    dumped,
    shown,
    write_rollout,
    write_state,
    write_training,
)

EVIL = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'
INJECTED = '<div class="exp">'


def headings(text):
    return re.findall(r"<h2>(.*?)</h2>", text)


def part(text, heading):
    return text[text.index(f"<h2>{heading}</h2>") :].split("<section", 1)[0]


def test_what_a_model_wrote_cannot_become_markup(tmp_path):
    text = page(everything(tmp_path / "runs", EVIL))
    tags = Tags(text)
    assert not {"script", "img"} & set(tags.seen)
    assert not [name for name, _ in tags.attributes if name.startswith("on")]
    assert text.count("&lt;script&gt;") > 15


@given(st.text())
def test_any_text_stays_inside_its_place(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("any") / "runs"
    write_rollout(folder, [episode(text or "x")])
    written = page(folder)
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\u202a-\u202e]", written)


def test_the_page_needs_nothing_from_outside(tmp_path):
    text = page(everything(tmp_path / "runs"))
    assert not re.search(r"src=|@import|url\(|https?:|<script", text)
    assert all(target.startswith("#") for target in re.findall(r'href="(.*?)"', text))
    assert "default-src 'none'" in text and "prefers-color-scheme: dark" in text and 'name="viewport"' in text


def test_every_part_is_there_and_its_links_lead_to_it(tmp_path):
    text = page(everything(tmp_path / "runs"))
    parts = ["In short", "Triggered alarms", "Evaluation", "Curves", "What was run", "Experience", "Episodes", "Cost"]
    assert headings(text) == parts
    links = re.findall(r'<a href="#(.*?)">', text)
    assert len(links) == len(parts) and all(f'<section id="{link}">' in text for link in links)


def test_parts_with_nothing_to_show_are_left_out(tmp_path):
    tree().save(tmp_path / "hek")
    assert headings(page(tmp_path / "hek")) == ["Experience"]
    write_rollout(tmp_path / "roll", [episode()])
    assert headings(page(tmp_path / "roll")) == ["What was run", "Episodes"]


def test_what_a_build_took_is_under_cost(tmp_path):
    version = tree().save(tmp_path / "hek")
    usage = {"calls": 1200, "stored": 3, "prompt_tokens": 5000, "completion_tokens": 700, "seconds": 40.0}
    manifest = Manifest(kind="build", spec={"distiller": "openai:<m>"}, seconds=61.5, results={"hek": [version.name]})
    manifest.finish(tmp_path / "hek", usage=usage, cost=0.25)
    text = page(tmp_path / "hek")
    assert headings(text) == ["Experience", "Cost"]
    cells = re.findall(r'data-name="(.*?)">(.*?)<', part(text, "Cost"))
    found = {"distiller": "openai:&lt;m&gt;", "calls": "1,200", "stored": "3", "prompt tokens": "5,000", "completion tokens": "700"}
    assert dict(cells) == {"build": "hek", **found, "cost": "0.25", "seconds": "61.5"}
    manifest.finish(tmp_path / "hek", usage=None, cost=None)  # by rule
    assert "calls" not in part(page(tmp_path / "hek"), "Cost")
    (tmp_path / "hek" / MANIFEST).write_text("{")
    assert headings(page(tmp_path / "hek")) == ["Experience", "Not read"]


def test_episodes_on_one_question_stand_side_by_side_with_what_was_injected(tmp_path):
    text = part(page(everything(tmp_path / "runs")), "Episodes")
    assert text.count('<div class="side">') == 2
    assert text.count(INJECTED) == 2  # in the system prompt and after the documents
    without, with_ = text.index("roll/without none</span>"), text.index("roll/with full</span>")
    assert without < with_ < text.index(INJECTED)
    assert "✗ wrong</span> without, " in text and "✓ right</span> with experience" in text


def test_experience_that_a_document_or_the_model_claims_is_not_marked(tmp_path):
    claim = "<experience>mine</experience>"
    messages = ({"role": "tool", "content": claim}, {"role": "assistant", "content": claim})
    guided = {"extra": {"shown": shown("e1-a")}, "id": "q1#1", "messages": messages[1:]}
    write_rollout(tmp_path / "roll", [trajectory(messages=messages), trajectory(**guided)])
    text = page(tmp_path / "roll")
    assert text.count("&lt;experience&gt;") == 3 and INJECTED not in text


def test_use_and_outcome_stand_beside_each_entry(tmp_path):
    version = tree().save(tmp_path / "runs" / "hek")
    content_hash = json.loads((version / "header.json").read_text())["content_hash"]
    write_training(tmp_path / "runs" / "run", {1: 0.1})
    write_state(tmp_path / "runs" / "run", 1, content_hash, {"e1-0001": {"episodes": 4, "reward": 1.0}})
    text = part(page(tmp_path / "runs"), "Experience")
    assert "Shown in 4 episodes: mean reward 0.25." in text  # no dump: from the checkpoint
    episodes = [dumped("q9", 1, True, "e1-0001"), dumped("q9", 1, False, "e1-0002", sample=1)]
    write_training(tmp_path / "runs" / "run", episodes=episodes)
    read_manifest(tmp_path / "runs" / "run").finish(tmp_path / "runs" / "run", hek=content_hash)
    text = part(page(tmp_path / "runs"), "Experience")
    # Scores 1.0 with it, 0.1 without; the counters of the checkpoint are of the same episodes and not added.
    assert "Shown in 1 episode: mean reward 1.00, 100% right." in text
    assert "not known; mean reward 1.000 with it and 0.100 without, 1 times in 1 group" in text
    assert text.count("never shown") == 4


def test_what_cannot_be_read_is_on_the_page_and_on_stderr(tmp_path, capsys):
    folder = everything(tmp_path / "runs")
    with (folder / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "da')
    assert main(["report", str(folder), "--out", str(tmp_path / "x.html"), "--title", "T & U"]) == 0
    out, err = capsys.readouterr()
    assert "1 training, 1 evaluation, 2 rollouts, 2 episodes, 1 HEK; " in out
    assert re.fullmatch(r"hiexp: .*metrics\.jsonl: 1 of 3 lines cannot be read \(line 3: not JSON .*\)\n", err)
    text = (tmp_path / "x.html").read_text()
    assert "metrics.jsonl: 1 of 3 lines cannot be read" in part(text, "Not read")
    assert "<title>T &amp; U</title>" in text


def test_ends_of_a_short_curve_do_not_overlap_and_a_validation_is_no_step(tmp_path):
    validation = {0: 0.562, 5: 0.688, 10: 0.812}
    steps = [{"step": step, "data": {"critic/score/mean": step / 10, "hiexp/acc": 0.5}} for step in range(1, 11)]
    lines = [{"step": step, "data": {"val-core/x": value}} for step, value in validation.items()]
    write_training(tmp_path / "run")
    write_jsonl(tmp_path / "run" / "metrics.jsonl", sorted(lines + steps, key=lambda line: line["step"]))
    cells = re.findall(r"<td[^>]*>(.*?)</td>", part(page(tmp_path / "run"), "In short"))
    # Rewards 0.1 to 1.0: means of the first five and of the last five.
    assert cells[1:] == ["10", "0.300 &rarr; 0.800", "0.562 &rarr; 0.812"]


def test_the_ends_of_a_curve_of_one_value_are_one_number(tmp_path):
    write_training(tmp_path / "run")
    rows = [{"step": s, "data": {"a": 1, **({"val-core/x": 0.5} if s == 2 else {})}} for s in (1, 2)]
    write_jsonl(tmp_path / "run" / "metrics.jsonl", rows)
    assert re.findall(r"<td[^>]*>(.*?)</td>", part(page(tmp_path / "run"), "In short"))[1:] == ["2", "0.500"]


@pytest.mark.parametrize(
    ("out", "expected"), [("there", "there/report.html"), ("new/er", "new/er/report.html"), ("d.html", "d.html/report.html")]
)
def test_out_may_be_a_directory_as_of_every_other_verb(tmp_path, capsys, out, expected):
    write_training(tmp_path / "run", {1: 0.1})
    for folder in ("there", "d.html"):
        (tmp_path / folder).mkdir()
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / out)]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / expected}: 1 training; ")
    assert "</html>" in (tmp_path / expected).read_text()


@pytest.mark.parametrize("out", ["file/report.html", "file", "taken", "x" * 300 + ".html"])
def test_a_place_that_takes_no_page_is_one_line(tmp_path, capsys, out):
    write_training(tmp_path / "run", {1: 0.1})
    (tmp_path / "file").write_text("mine")
    (tmp_path / "taken" / "report.html").mkdir(parents=True)
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / out)]) == 2
    assert re.fullmatch(
        r"hiexp: \S+ cannot be written \(.*\), nothing was changed; make room there or give another place, then run again\n",
        capsys.readouterr().err,
    )
    assert (tmp_path / "file").read_text() == "mine"


def test_a_directory_without_runs_is_one_line_and_leaves_no_page(tmp_path, capsys):
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "x.html")]) == 2
    assert capsys.readouterr().err.startswith("hiexp: nothing to report in ")
    assert not list(tmp_path.iterdir())


def test_the_same_runs_give_the_same_page(tmp_path):
    folder = everything(tmp_path / "runs")
    assert page(folder, out=tmp_path / "a.html") == page(folder, out=tmp_path / "b.html")


def test_thousands_of_steps_episodes_and_entries_make_a_small_page(tmp_path):
    folder = tmp_path / "runs"
    long = "word " * 20_000
    episodes = [dumped(f"q{i % 500}", 1, i % 2 == 0, *([f"e1-{i % 900:04d}"] if i % 3 else [])) for i in range(3000)]
    episodes[0] = trajectory("q0", False, id="q0#0@1", extra=episodes[0].extra, messages=({"role": "assistant", "content": long},) * 9)
    write_training(folder / "run", {step: step % 7 / 7 for step in range(5000)}, episodes=episodes, actor__entropy=0.1)
    hek(*(e(n) for n in range(1000))).save(folder / "hek")
    text = page(folder)
    assert len(text) < 1_000_000
    assert f"and {1000 - MAX_CHILDREN} more" in text
    assert "each point the mean of 84 points" in text  # 5000 in 60
    assert "more characters)" in text and "of 3,000 episodes in all" in text
