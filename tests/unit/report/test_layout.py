"""The report in a browser: nothing is wider than its place, at the width of a desktop and of a phone."""

import pytest

from hiexp_verl.report import write_report
from tests.support.browser import CHROMIUM, Browser, browser
from tests.support.report_pages import episode, everything, page
from tests.support.runs import arm, dumped, row, write_evaluation, write_rollout, write_training

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

LONG = "/mnt/shared/experiments/2026-11/qwen2.5_7b_instruct_grpo_full_experience_with_a_very_long_name"
# A text beyond the right end of its cell, in cells that are seen.
SPILLED = """[...document.querySelectorAll('td, th')].filter(cell => {
  const range = document.createRange();
  range.selectNodeContents(cell);
  return cell.offsetParent && range.getBoundingClientRect().right > cell.getBoundingClientRect().right + 1;
}).map(cell => cell.textContent)"""
# Tables that are wider than the box in which they could be scrolled, and boxes that are wider than the page.
TOO_WIDE = """[...document.querySelectorAll('table')].filter(table => {
  const box = table.parentElement;
  return table.scrollWidth > box.clientWidth || box.scrollWidth > box.clientWidth;
}).map(table => table.textContent.slice(0, 200))"""


@pytest.fixture(scope="module")
def tab():
    with browser() as running:
        yield running


def check_widths(tab: Browser, width: int) -> None:
    tab.run("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert tab.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert tab.run("document.documentElement.clientWidth") == width
    assert tab.run(TOO_WIDE) == []
    assert tab.run(SPILLED) == []
    assert tab.faults() == []


def many_runs(folder, count):
    """Trainings, evaluations and rollouts with long names that differ in many settings."""
    for i in range(count):
        config = {
            "actor_rollout_ref__model__path": f"{LONG}/{i}/checkpoints/global_step_{i}",
            "actor_rollout_ref__rollout__n": i,
            "data__train_files": [f"{LONG}/train_{i}.parquet", f"{LONG}/more_{i}.parquet"],
            "data__train_batch_size": 128 * (i + 1),
            "algorithm__adv_estimator": "hiexp_grpo" if i % 2 else "hiexp_grpo_with_a_long_name",
            **{f"reward__custom__a_rather_long_setting_{n}": f"{LONG}/{i}/{n}" for n in range(12)},
        }
        parts = {f"timing_s__part_{n}_of_a_step": 1.5 * n for n in range(14)}
        measured = {**parts, "timing_s__step": 200.0, "hiexp__with_experience": 0.5, "val-core__a_long_data_set/acc/mean@1": 0.25}
        run = folder / f"{LONG.rpartition('/')[2]}_seed_{i}"
        write_training(run, {1: 0.1, 2: 0.4}, config, [dumped("q1", 1, True, "e1-0001"), dumped("q1", 1, False)], **measured)
        write_rollout(folder / "rollouts" / f"{LONG[1:]}/{i}", [episode()], model=LONG, temperature=i / 10, instructions="Answer. " * 40)
        arms = [arm("none", 0.4, dataset="hotpotqa_distractor_validation", judge=0.5)]
        for name in ("full", "shuffled", "own-question"):
            arms.append(arm(name, 0.6, 0.2, dataset="hotpotqa_distractor_validation", judge=0.5, experience_tokens=120.5))
        rows = [row(name, f"q{q}", q % 2 == 0, dataset="hotpotqa_distractor_validation") for name in ("none", "full") for q in range(4)]
        write_evaluation(run / "evaluation", arms, rows, settings={"corpus": LONG, "policy": LONG})


@pytest.mark.parametrize("count", [1, 3, 9])
def test_nothing_is_wider_than_its_place(tmp_path, tab, count):
    many_runs(tmp_path / "runs", count)
    write_report([tmp_path / "runs"], tmp_path / "report.html")
    for width in (1280, 390):
        tab.open((tmp_path / "report.html").as_uri(), width)
        check_widths(tab, width)
        assert tab.run("document.querySelectorAll('#what-was-run table, #what-was-run dl').length") > 0


@pytest.mark.parametrize("width", [1280, 390])
def test_long_words_are_broken(tmp_path, tab, width):
    page(everything(tmp_path / "runs", "Donaudampfschifffahrtsgesellschaftskapitän" * 3))
    tab.open((tmp_path / "report.html").as_uri(), width)
    check_widths(tab, width)


@pytest.mark.parametrize("width", [1280, 390])
def test_what_an_arm_gains_is_in_view_without_scrolling(tmp_path, tab, width):
    arms = [arm("none", 0.4, dataset="a"), arm("prompt", 0.6, -0.2, dataset="a"), arm("own-question", 0.9, 0.5, dataset="a")]
    rows = [row(name, f"q{i}", i % 2 == 0, dataset="a") for name in ("none", "prompt") for i in range(9)]
    write_evaluation(tmp_path / "eval", arms, rows)
    page(tmp_path / "eval")
    tab.open((tmp_path / "report.html").as_uri(), width)
    cells = "[...document.querySelectorAll('#evaluation table tbody tr:nth-child(2) td')]"
    assert tab.run(f"{cells}.slice(0, 4).map(cell => cell.dataset.name)") == ["arm", "correct", "correct against none", "won, lost"]
    assert tab.run(f"{cells}[2].getBoundingClientRect().right") < width


def test_a_box_of_the_legend_hides_the_lines_of_its_run(tmp_path, tab):
    for name, enabled in (("a", True), ("b", False)):
        write_training(tmp_path / name, {1: 0.1, 2: 0.3}, {"hiexp__enabled": enabled})
    page(tmp_path / "a", tmp_path / "b", out=tmp_path / "r.html")
    tab.open((tmp_path / "r.html").as_uri())
    visible = "[0, 1].map(i => getComputedStyle(document.querySelector('.k' + i)).display)"
    assert tab.run(visible) == ["inline", "inline"]
    tab.run("document.querySelector('.legend .c1').click()")
    assert tab.run(visible) == ["inline", "none"]
