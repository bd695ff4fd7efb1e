"""The benchmarks' tables say what was measured; `make bench` runs them all, and does not stop at one that fails."""

import json
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from benchmarks.__main__ import BEGIN, END, NAMES, ROOT, others, replace_between, run_all
from benchmarks._machine import facts_when_begun, peak_gib
from benchmarks._results import RESULTS, Claim, Panel, Result, claims_table, figure, plot, publish, summary
from hiexp_verl.types import Question

FASTER = Claim("Sorting", "s", "less", 2.0, "by hand", 10.0, 0.5)
MACHINE = {
    "command": "python -m benchmarks.sorting",
    "commit": "abc1234",
    "date": "2026-11-21",
    "cpu": "abacus",
    "cores": 2,
    "memory_gib": 4.0,
    "load_before": 0.5,
    "system": "none",
    "packages": {"numpy": "2"},
}


def test_a_goal_that_is_missed_by_less_than_the_rounding_is_told():
    def goal(ours, better, wanted):
        return Claim("Sorting", "s", better, ours, "by hand", 1.0, wanted).goal

    assert goal(1.0218, "less", 1.02) == "at most 1.02, missed (1.022)" and goal(1.02, "less", 1.02) == "at most 1.02"
    assert goal(0.79, "more", 0.8) == "at least 0.8, missed (0.79)" and goal(0.83, "more", 0.8) == "at least 0.8"


def test_what_the_benchmarks_did_not_write_is_listed_beside_their_table(tmp_path):
    publish("sorting", MACHINE, Result("Sorting", [FASTER], [Panel("n", "s", {"ours": [(1, 2.0)]})], {}), tmp_path)
    assert others(tmp_path) == []
    (tmp_path / "effect.md").write_text("# An effect\n\nNone.\n")
    (tmp_path / "effect.json").write_text('{"outcome": []}')
    assert others(tmp_path)[-1] == "- [An effect](effect.md)"


def test_what_is_written_of_the_gate_is_what_was_measured():
    claims = {each["what"]: each["ours"] for each in json.loads((RESULTS / "ledger.json").read_text())["claims"]}
    what = "A version that does nothing: accepted by the gate ({})"
    strict, ratchet = (round(100 * claims[what.format(rule)]) for rule in ("strict", "ratchet"))
    docs = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("config", "concepts", "cli")}
    assert f"Of 100 versions that do nothing strict accepts {strict}, ratchet {ratchet}." in docs["config"]
    assert f"Of 100 versions that do nothing, `ratchet` accepts {ratchet} and `strict` {strict}" in docs["concepts"]
    gates = json.loads((RESULTS / "ledger.json").read_text())["gates"]
    accepted = {(g["defaults"], g["candidate"], g["rule"]): round(100 * g["accept"] / g["seeds"]) for g in gates}
    at_defaults = [accepted["hiexp evolve", candidate, rule] for candidate in ("nothing", "gain") for rule in ("strict", "ratchet")]
    said = "Of 100 candidates that do nothing strict accepts {} and ratchet {}; of 100 that gain 0.05, {} and {}"
    assert said.format(*at_defaults) in docs["cli"]
    assert f"it is {strict} and {ratchet}, and nearly all" in docs["cli"]


def test_results_written_anew_keep_the_commit_that_measured_them(tmp_path):
    begun = facts_when_begun(tmp_path)
    assert begun["commit"] and begun["cores"]
    (tmp_path / "machine.json").write_text(json.dumps(MACHINE))
    assert facts_when_begun(tmp_path) == MACHINE


def test_a_claim_shows_both_figures_and_how_ours_compares():
    assert claims_table([FASTER, Claim("Finding", "a second", "more", 1234.5, "one by one", 100.0)]) == [
        "|  | ours | instead | ratio | wanted |",
        "| --- | ---: | --- | ---: | --- |",
        "| Sorting, s (less is better) | 2.00 | by hand: 10.0 | 0.200 | at most 0.5 |",
        "| Finding, a second (more is better) | 1,234 | one by one: 100 | 12.3 |  |",
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(0.01234, "0.0123"), (1.2, "1.20"), (99.96, "100"), (12345.6, "12,346"), (0, "0"), (1, "1.00")]
)
def test_a_figure_has_three_digits_or_all_before_the_point(value, text):
    assert figure(value) == text


def test_the_summary_takes_the_claims_of_every_result_with_their_own_date_and_commit(tmp_path):
    publish("sorting", MACHINE, Result("Sorting", [FASTER], [Panel("n", "s", {"ours": [(1, 2.0)]})], {"rows": [2.0]}), tmp_path)
    (tmp_path / "older.json").write_text('{"machine": {}, "rounds": []}')  # a result without claims
    assert summary(tmp_path, "results/")[2:] == [
        "| Sorting, s (less is better) | 2.00 | by hand: 10.0 | 0.200 | [2026-11-21, abc1234](results/sorting.md) |"
    ]
    assert json.loads((tmp_path / "sorting.json").read_text())["rows"] == [2.0]
    page = (tmp_path / "sorting.md").read_text()
    assert "`python -m benchmarks.sorting` at commit abc1234, 2026-11-21" in page and "![growth](sorting.svg)" in page


def test_the_same_numbers_draw_the_same_bytes(tmp_path):
    panels = [Panel("n", "s", {"ours": [(1, 0.5), (2, 1.0)], "theirs": [(1, 1.0)]}), Panel("n", "GiB", {"ours": [(1, 1.0)]})]
    plot(panels, tmp_path / "a" / "x.svg")
    plot(panels, tmp_path / "b" / "x.svg")
    drawn = (tmp_path / "a" / "x.svg").read_bytes()
    assert drawn == (tmp_path / "b" / "x.svg").read_bytes()
    assert ElementTree.fromstring(drawn).tag.endswith("svg")


def test_one_that_fails_or_hangs_is_named_and_the_others_run(tmp_path):
    done = tmp_path / "done"

    def python(code):
        return [sys.executable, "-c", code]

    commands = {
        "bad": python("raise SystemExit(3)"),
        "hangs": python("import time; time.sleep(60)"),
        "good": python(f"open({str(done)!r}, 'w')"),
    }
    assert run_all(commands, most_seconds=2) == {"bad": "exit code 3", "hangs": "stopped after 2 s"}
    assert done.exists()


def test_the_table_goes_between_the_marks_and_nothing_else_changes(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(f"before\n\n{BEGIN}\nold\nolder\n{END}\n\nafter\n")
    replace_between(page, ["| new |"])
    assert page.read_text() == f"before\n\n{BEGIN}\n| new |\n{END}\n\nafter\n"
    page.write_text("no marks\n")
    with pytest.raises(SystemExit, match="has no place for the table"):
        replace_between(page, ["| new |"])
    assert page.read_text() == "no marks\n"


def test_the_page_of_results_has_a_place_for_the_table():
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1


def test_the_peak_is_that_of_the_process_and_not_of_its_parent():
    ballast = b"x" * (300 * 2**20)
    assert peak_gib() > len(ballast) / 2**30
    code = "from benchmarks._machine import facts_when_begun, peak_gib; print(peak_gib())"
    child = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout)
    assert child < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clustering", "memory", "selection"])
def test_a_benchmark_that_needs_no_model_runs(tmp_path, name):
    smoke(tmp_path, name)


@pytest.mark.slow
@pytest.mark.assets
def test_the_benchmark_of_retrieval_runs(tmp_path):
    found = smoke(tmp_path, "retrieval")
    assert list(found["top_k"]) == ["64", "128"] and {len(times) for times in found["top_k"]["128"].values()} == {10}


def test_distillation_counts_undisturbed_measurements_and_compares_with_one_request_after_another():
    from benchmarks.distil_throughput import OURS, quiet_rounds, result_of

    measured = [("offline", 40.0, 0.0), (OURS, 30.0, 0.0), (OURS, 10.0, 0.5), ("vllm, 1", 5.0, 0.0), ("vllm-local", 20.0, 0.2)]
    rows = [{"engine": way.split(",")[0], "way": way, "tokens_per_s": rate, "others": others} for way, rate, others in measured]
    assert quiet_rounds(rows, "vllm") == [1, 1] and quiet_rounds(rows, "vllm-local") == [0] and quiet_rounds(rows, "none") == []
    result = result_of(rows, "")
    # 10 tokens a second were measured while others had half of the machine; vllm-local's 20 are all that there is of it.
    assert [(claim.ours, claim.theirs) for claim in result.claims] == [(30, 5), (30, 40), (20, 40)]
    assert ["other work" in claim.what for claim in result.claims] == [False, False, True]
    in_flight = int(OURS.split(", ")[1])
    assert result.panels[0].lines["vllm"] == [(1, 5.0), (in_flight, 30.0)]


@pytest.mark.verl
def test_rounds_alternate_between_with_and_without_and_medians_are_of_their_point():
    pytest.importorskip("verl")
    from benchmarks import overhead

    size = overhead.Size(overhead.Point(4, 20, 3), overhead.Point(4, 20, 1, sharing=1), 1, (40,), (2,))
    seconds = iter([1.2, 1.1, 1.0, 1.0, 1.4, 1.3, 1.6, 1.1, 1.2, 3.0, 2.0, 1.5, 2.2, 2.0, 0.9, 0.6])  # in the order of playing
    played = []

    def play(way, point, seed):
        played.append((way, seed))
        return {"seconds": next(seconds), "cpu_seconds_of_the_worker": 0.1, "generated_tokens": 10, "experience_tokens": 1}

    rows = overhead.play_all(size.points(), play)
    assert [way for way, _ in played[:6]] == ["with", "again", "without", "without", "with", "again"]
    assert [seed for _, seed in played[:4]] == [1, 1, 1, 2], "all ways of a round play the same"
    # with: 1.2, 1.4, 1.6; again: 1.1, 1.3, 1.1; without: 1.0, 1.0, 1.2
    assert overhead.medians(rows, size.claim) == {"with": 1.4, "again": 1.1, "without": 1.0}
    result = overhead.result_of(rows, size)
    # The hard point differs in nothing but its queries: 3.0 with, 2.0 again, 1.5 without.
    assert [round(claim.ratio, 6) for claim in result.claims] == [1.4, 1.1, 2.0, round(2 / 1.5, 6)]
    # The other points: 2.2 with and 2.0 without at 40 ms a token, 0.9 and 0.6 with two episodes.
    assert result.panels[0].lines["4 episodes"] == [(20, 1.4), (40, 1.1)]
    assert result.panels[1].lines["20 ms a token"] == [(2, 1.5), (4, 1.4)]


@pytest.mark.e2e
@pytest.mark.verl
@pytest.mark.assets
def test_make_bench_runs_those_that_need_engines_and_summarises(tmp_path):
    names = ["distil_throughput", "overhead"]
    assert set(names) < set(NAMES)
    command = [sys.executable, "-m", "benchmarks", "--size", "smoke", "--out", str(tmp_path), *names]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    claims = [claim for name in names for claim in json.loads((tmp_path / f"{name}.json").read_text())["claims"]]
    assert len(claims) == 7 and all(f"| {claim['what']}, " in (tmp_path / "README.md").read_text() for claim in claims)


def smoke(folder, name):
    """Run one benchmark in its smallest size; return what it wrote."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--size", "smoke", "--out", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    found = json.loads((folder / f"{name}.json").read_text())
    assert found["claims"] and all(claim["ours"] > 0 and claim["theirs"] > 0 for claim in found["claims"])
    assert {path.name for path in folder.iterdir()} == {f"{name}.{end}" for end in ("json", "md", "svg")}
    return found


def test_the_effect_by_rl_compares_only_the_seeds_that_were_run_with_every_control():
    from benchmarks.effect_rl import outcomes

    ways = {"one": "capital", "two": "capital > customer"}
    rows = [{"id": id, "arm": arm, "concise": float(arm == "full"), "searches": 2} for id in ways for arm in ("none", "full")]
    rows = [row | dict.fromkeys(("em", "f1", "cem", "format", "tokens", "seconds"), 1.0) | {"shown": []} for row in rows]
    done = [("grpo", "none", 0), ("grpo", "full", 0), ("grpo", "none", 1), ("gspo", "none", 0)]
    runs = [{"algorithm": algorithm, "trained": control, "seed": seed, "rows": rows} for algorithm, control, seed in done]
    lines = outcomes(runs, ways)
    assert {line["dataset"] for line in lines} == {"grpo, all", "grpo, capital", "grpo, capital > customer"}
    every = {line["arm"]: (line["concise"], line["by_seed"]) for line in lines if line["dataset"] == "grpo, all"}
    assert every == {"none": (0.0, [0.0]), "none, full": (1.0, [1.0]), "full, none": (0.0, [0.0]), "full, full": (1.0, [1.0])}


def test_questions_of_both_wordings_come_in_pairs_of_one_kind():
    from benchmarks.effect_rl import KINDS, alternately

    plain, lay = (
        [Question(f"{wording}-{kind}-{n}", "?", ("a",), {"family": kind}) for n in range(2) for kind in KINDS]
        for wording in ("plain", "lay")
    )
    asked = alternately(plain, lay, 2 * len(KINDS) + 2)
    assert [q.meta["family"] for q in asked] == [kind for kind in (*KINDS, KINDS[0]) for _ in range(2)]
    assert [q.id.partition("-")[0] for q in asked] == ["plain", "lay"] * (len(KINDS) + 1) and asked[-1].id == f"lay-{KINDS[0]}-1"
