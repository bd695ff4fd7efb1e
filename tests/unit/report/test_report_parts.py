"""Charts, tables and figures of the report, by hand-computed numbers."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexp_verl.evaluate.tables import signed
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.report import policies
from hiexp_verl.report.charts import MAX_POINTS, Line, chart, interval_bar, mean_and_band, thinned, ticks
from hiexp_verl.report.curves import curves, grouped
from hiexp_verl.report.episodes import pairs, read_again, read_played
from hiexp_verl.report.evaluations import Evaluation, in_short, tables
from hiexp_verl.report.html import number
from hiexp_verl.report.sections import alarms, cost, parts_of, rollouts, settings, spans
from hiexp_verl.report.training import Training
from hiexp_verl.report.tree import uses_of
from tests.support.report_pages import Tags
from tests.support.runs import arm, dumped

# ---- charts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 1.0, [0, 0.5, 1]), (0.11, 0.39, [0.1, 0.2, 0.3, 0.4]), (3, 3, None), (0, 0, None), (-1e9, 1e9, None), (1e-9, 2e-9, None)],
)
def test_ticks_are_few_round_and_span_the_data(low, high, expected):
    found = ticks(low, high)
    assert found[0] <= low <= high <= found[-1]
    assert 2 <= len(found) <= 7
    assert expected is None or found == pytest.approx(expected)


FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(st.integers(0, 10_000), FINITE), max_size=200))
def test_any_curve_can_be_drawn(points):
    drawn = chart("reward", [Line("run", 0, points, band=[(x, y, y) for x, y in points], marks=[5.0], faint=[points])])
    Tags(drawn)
    assert "nan" not in drawn and "inf" not in drawn


def test_long_labels_of_an_axis_lie_inside_the_drawing():
    drawn = chart("drift", [Line("run", 0, [(2, 0.0000615), (4, 0.0000617)])])
    ends = [(float(x), text) for x, text in re.findall(r'<text x="([\d.]+)" [^>]*text-anchor="end">([^<]+)<', drawn)]
    assert max(len(text) for _, text in ends) == 9  # 6.145e-05
    assert all(x >= 7 * len(text) for x, text in ends)


def test_no_points_are_no_chart():
    assert chart("reward", [Line("run", 0, [])]) == chart("reward", []) == ""


def test_long_curves_become_means_of_neighbours():
    points = [(float(x), float(x % 2)) for x in range(2 * MAX_POINTS)]
    thin = thinned(points)
    assert len(thin) == MAX_POINTS and thin[0] == (0.5, 0.5) and {y for _, y in thin} == {0.5}
    assert thinned(points[:MAX_POINTS]) == points[:MAX_POINTS]


def test_mean_and_band_are_taken_where_all_runs_have_a_value():
    mean, band = mean_and_band([[(1, 0.0), (2, 0.4), (3, 0.9)], [(1, 1.0), (2, 0.6)]])
    assert mean == [(1, 0.5), (2, 0.5)] and band == [(1, 0.0, 1.0), (2, 0.4, 0.6)]


def run(name, values=(0.1, 0.2), config=None, **more):
    steps = {i: {"critic/score/mean": value, **more} for i, value in enumerate(values, start=1)}
    return Training(name, steps, config=config or {})


def test_runs_that_differ_in_seed_and_place_alone_are_one_line():
    configs = [{"n": n, "hiexp.seed": s, "a.rollout.seed": s, "hiexp.dump_dir": f"{n}{s}"} for n in (4, 8) for s in (0, 1)]
    groups = grouped([run(f"n{c['n']}-seed{c['hiexp.seed']}", config=c) for c in configs])
    assert [(group.name, len(group.runs)) for group in groups] == [("n4-seed* (2 runs)", 2), ("n8-seed* (2 runs)", 2)]


def evaluated(name, right, training="", questions="abcdefgh", **facts):
    values = {("val", arm): {q: float(q in good) for q in questions} for arm, good in right.items()}
    lines = [{"dataset": "val", "arm": arm, "episodes": len(questions)} for arm in right]
    return Evaluation(name, lines, facts=facts, values=values, training=training)


def seeds_of_policies(**right):
    """Return the evaluations of runs `kind_seed`, each of its own training; those of `full` saw experience."""
    names = list(right)
    kinds = {name: name.partition("_")[0] for name in names}
    shown = {"full": {"hiexp/with_experience": 1.0}}
    trainings = [run(name, config={"kind": kinds[name], "seed": name[-1]}, **shown.get(kinds[name], {})) for name in names]
    return [evaluated(f"{name}/eval", {"none": good, "full": "abc"}, name) for name, good in right.items()], trainings


def test_policies_are_compared_on_the_questions_that_all_were_asked():
    found, trainings = seeds_of_policies(none_0="ab", none_1="abcd", full_0="abcdefgh", full_1="abcdef")
    compared = policies.comparisons([*found, evaluated("foreign", {"none": "xy"}, questions="xyz")], trainings)
    drawn = policies.between(compared)
    assert "<b>none_* (2 runs)</b>, none" in drawn and "0.250, 0.500" in drawn, "each seed beside their mean"
    assert "+0.500" in drawn, "of full, 0.875, against 0.375"
    assert "<b>full_* (2 runs)</b>, full" in drawn and "other questions: foreign, none" in drawn
    (sentence,) = policies.in_short(compared)
    assert sentence.startswith(
        "Against <b>none_* (2 runs)</b> without experience on val, correct: better: <b>full_* (2 runs), none</b> (+0.500, p 0"
    )
    assert "no significant difference: <b>none_* (2 runs), full</b> (+0.000, p 1.000)" in sentence
    assert policies.comparisons(found[:2], trainings) == [], "one policy, two seeds"
    assert policies.comparisons([found[0]], []) == policies.comparisons([], []) == [] and policies.between([]) == ""


def test_the_reference_is_trained_without_experience_where_one_is():
    found, trainings = seeds_of_policies(full_0="abcdef", none_0="ab")
    compared = policies.comparisons([evaluated("start", {"none": "abc"}), *found], trainings)
    assert compared[0].reference.policy == "none_0" and compared[0].why == "the first one trained without"
    assert policies.comparisons([evaluated("start", {"none": "abc"}), found[0]], trainings)[0].reference.policy == "start"


def test_two_evaluations_of_one_training_are_not_its_seeds():
    found, trainings = seeds_of_policies(none_0="ab", full_0="abcdef")
    (compared,) = policies.comparisons([*found, evaluated("full_0/sampled", {"none": ""}, "full_0")], trainings)
    worth = {played.policy: sum(played.mean.values()) for played, _ in compared.lines if played.arm == "none"}
    assert worth == {"none_0": 2, "full_0 eval": 6, "full_0 sampled": 0}


def test_policies_are_compared_at_the_same_temperature():
    greedy, sampled = (evaluated(f"effect/{at}", {"none": "ab"}, temperature=at) for at in (0.0, 1.0))
    assert policies.comparisons([greedy, sampled], []) == [], "one policy, greedy and sampled"
    (compared,) = policies.comparisons([greedy, sampled, evaluated("other", {"none": "abc"}, temperature=1.0)], [])
    assert compared.dataset == "val, temperature 1.0" and [played.policy for played, _ in compared.lines] == ["effect/1.0", "other"]


def test_runs_of_which_no_configuration_is_known_stay_apart():
    assert len(grouped([run("a"), run("b")])) == 2


def test_a_resume_is_marked_and_a_constant_is_a_sentence():
    drawn = curves([replace(run("a", **{"actor/entropy": 0.5}), resumed=(2,))])
    assert "a resumed at step 2" in drawn and "A diamond marks" in drawn
    assert "Constant in all steps of all runs: entropy 0.5." in drawn
    assert "<h3>entropy</h3>" not in drawn


def test_a_new_version_of_the_hek_is_marked_from_its_first_step():
    versions = (1.0, 1.0, 2.0, 2.0)
    steps = {step: {"hiexp/loop/version": version, "hiexp/acc": step / 10} for step, version in enumerate(versions, start=1)}
    drawn = curves([Training("a", steps)])
    assert "a: a new version of the HEK from step 4" in drawn and "A dotted line marks" in drawn
    assert drawn.count("from step 4") == 2, "in both charts"


def test_validation_has_charts_of_its_own():
    steps = {1: {"val-core/hotpot/acc/mean@1": 0.2, "val-aux/hotpot/f1/mean@1": 0.3}, 2: {"val-core/hotpot/acc/mean@1": 0.5}}
    drawn = curves([Training("a", steps)])
    assert "<h3>validation: hotpot/acc/mean@1</h3>" in drawn and "<h3>validation: hotpot/f1/mean@1</h3>" in drawn


def test_an_axis_has_more_than_one_number():
    drawn = curves([replace(run("a", values=(0.1, 0.2)), steps={7800: {"critic/score/mean": 0.1}, 92490: {"critic/score/mean": 0.2}})])
    assert all(f">{tick}</text>" in drawn for tick in ("20k", "40k", "60k", "80k"))


def test_equal_steps_are_not_equal_budgets():
    one, other = run("a", **{"perf/total_num_tokens": 1000.0}), run("b", **{"perf/total_num_tokens": 5000.0})
    drawn = curves([one, other])
    points = re.search(r"<h3>reward by tokens spent</h3>.*?</figure>", drawn)[0]
    assert "<title>a, 2000: 0.2</title>" in points and "<title>b, 10000: 0.2</title>" in points
    assert "reward by tokens" not in curves([one])


def test_validation_is_drawn_by_tokens_too_from_before_the_first_step():
    def validated(name, tokens):
        steps = {step: {"critic/score/mean": 0.1, "perf/total_num_tokens": tokens} for step in (1, 2)}
        steps[2]["val-core/hotpot/acc/mean@1"] = 0.6
        before = {"val-core/hotpot/acc/mean@1": 0.4, "val-aux/hotpot/f1/mean@1": 0.1, "perf/total_num_tokens": float("nan")}
        return Training(name, {0: before, **steps})

    drawn = curves([validated("a", 1000.0), validated("b", 5000.0), run("c")])  # of c no tokens are known
    points = re.search(r"<h3>validation: hotpot/acc/mean@1 by tokens spent</h3>.*?</figure>", drawn)[0]
    assert re.findall(r"<title>(.*?)</title>", points) == ["a, 0: 0.4", "a, 2000: 0.6", "b, 0: 0.4", "b, 10000: 0.6"]
    rewards = re.search(r"<h3>reward by tokens spent</h3>.*?</figure>", drawn)[0]
    assert "f1/mean@1 by tokens" not in drawn and "<title>c" not in rewards


# ---- evaluation --------------------------------------------------------------------------------------------------------


def evaluation(*arms, **fields):
    return Evaluation("eval", arms, **fields)


def test_arms_are_sorted_by_what_their_interval_says():
    arms = [arm("none", 0.4), arm("full", 0.6, 0.2), arm("random", 0.45, 0.05), arm("shuffled", 0.1, -0.3)]
    assert in_short([evaluation(*arms)]) == [
        "eval, set, against none: better: <b>full</b> (correct +0.200 [+0.100, +0.300], p 0.020); worse: <b>shuffled</b> "
        "(correct -0.300 [-0.400, -0.200], p 0.020); no significant difference: <b>random</b> (correct +0.050 [-0.050, +0.150], p 0.020)."
    ]


def test_an_interval_alone_makes_no_verdict_when_the_test_sees_nothing():
    sure, unsure = arm("full", 0.6, 0.2), arm("shuffled", 0.1, -0.3)
    sure["concise_minus_none"]["p"], unsure["concise_minus_none"]["p"] = 0.01, 0.25
    assert in_short([evaluation(arm("none", 0.4), sure, unsure)]) == [
        "eval, set, against none: better: <b>full</b> (correct +0.200 [+0.100, +0.300], p 0.010); "
        "no significant difference: <b>shuffled</b> (correct -0.300 [-0.400, -0.200], p 0.250)."
    ]
    drawn = tables([evaluation(arm("none", 0.4), sure, unsure)])
    assert re.findall(r'p (0\.010|0\.250)</span><svg class="interval (\w+)"', drawn) == [("0.010", "up"), ("0.250", "even")]


def test_each_data_set_has_its_table_and_what_was_won_and_lost():
    arms = [arm(name, 0.5, gain, dataset=dataset) for dataset in ("hotpot", "2wiki") for name, gain in (("none", None), ("full", 0.2))]
    values = {("2wiki", "none"): {"a": 1.0, "b": 0.0, "c": 0.0}, ("2wiki", "full"): {"a": 0.5, "b": 1.0, "c": 0.5}}
    drawn = tables([evaluation(*arms, values=values)])
    assert drawn.index("<h4>hotpot</h4>") < drawn.index("<h4>2wiki</h4>") < drawn.index(">2, 1<")
    assert drawn.count("+0.200") == 2 and drawn.count(">2, 1<") == 1


def test_a_table_of_one_question_has_no_intervals():
    drawn = tables([evaluation(*({"dataset": "set", "arm": name, "em": 0.5, "concise": 0.5, "episodes": 1} for name in ("none", "full")))])
    Tags(drawn)
    assert "0.500" in drawn and "against none" not in drawn


def test_arms_against_each_other_are_folded_under_their_table():
    gap = {"dataset": "set", "arm": "full", "against": "random", "mean": 0.25, "low": 0.1, "high": 0.4, "p": 0.013}
    pairs = [gap | {"measure": "em", "mean": 0.5}, gap | {"measure": "concise"}, gap | {"measure": "concise", "against": "<b>"}]
    drawn = tables([evaluation(arm("none", 0.4), pairs=pairs)])
    Tags(drawn)
    inside = re.search(r'<details class="fold"><summary class="soft">Arm against arm \(2\)</summary>.*?</details>', drawn)[0]
    assert inside.index(">correct</th>") < inside.index(">EM</th>")
    assert re.search(r"<b>full</b></td><td [^>]*>random</td><td [^>]*>\+0.250 ", inside)
    assert "+0.500" in inside and "p 0.013" in inside
    assert "&lt;b&gt;" in inside
    assert "Arm against arm" not in tables([evaluation(arm("none", 0.4))])


def test_an_unfinished_evaluation_says_so():
    assert "no table yet" in tables([evaluation()]) and in_short([evaluation()]) == ["eval: no table yet."]


def test_what_rounds_to_zero_has_no_sign():
    assert [signed(value) for value in (-0.0004, 0.0, 0.0004, -0.0006)] == ["+0.000", "+0.000", "+0.000", "-0.001"]


def test_an_interval_is_drawn_to_scale_and_coloured_by_its_side():
    drawn = interval_bar(0.0, -1.0, 1.0, (-1.0, 1.0), 0)
    assert 'viewBox="0 0 120 16"' in drawn and 'd="M4.0 8.0H116.0' in drawn and 'cx="60.0"' in drawn and 'class="interval even"' in drawn
    assert 'class="interval up"' in interval_bar(0.5, 0.1, 1.0, (-1.0, 1.0), 1)
    assert 'class="interval down"' in interval_bar(-0.5, -1.0, -0.1, (-1.0, 1.0), -1)


# ---- episodes ----------------------------------------------------------------------------------------------------------


def played(tmp_path, *episodes):
    path = tmp_path / "000001.jsonl"
    write_jsonl(path, episodes)
    return read_played(path, "run", {}, "", [])


def test_pairs_are_of_one_step_and_question_and_those_that_differ_come_first(tmp_path):
    found = played(
        tmp_path,
        *(dumped("same", 1, True, sample=0), dumped("same", 1, True, "e1-a", sample=1)),
        *(dumped("won", 1, False, sample=0), dumped("won", 1, False, "e1-a", sample=1), dumped("won", 1, True, "e1-a", sample=2)),
        *(dumped("lost", step, correct, *shown) for step in (1, 2) for correct, shown in ((True, ()), (False, ("e1-a",)))),
        *(dumped("other steps", 1, True), dumped("other steps", 2, False, "e1-a")),
    )
    chosen = pairs(found, 10)
    assert [(a.question[0], a.correct, b.correct) for a, b in chosen] == [("won", False, True), ("lost", True, False), ("same", True, True)]
    assert chosen[1][0].step == 2  # of a question that came twice, the later one
    assert pairs(found, 1) == chosen[:1]
    texts = read_again([chosen[0][1]])
    assert texts[chosen[0][1]].id == "won#2@1"


def test_an_entry_is_compared_with_the_same_question_without_it(tmp_path):
    found = played(
        tmp_path,
        *(dumped("q1", 1, True, "e1-a"), dumped("q1", 1, False, "e1-b", sample=1)),  # 1.0 - 0.1
        *(dumped("q2", 1, False, "e1-a"), dumped("q2", 1, False, "e1-b", sample=1)),  # 0.1 - 0.1
        dumped("q3", 1, True, "e1-a"),  # nothing to compare with
    )
    use = uses_of(found, [{"e1-a": {"episodes": 1, "reward": 0.3}, "e1-c": {"episodes": 2, "reward": 1.0}}])
    assert (use["e1-a"].episodes, use["e1-a"].reward) == (4, pytest.approx((1.0 + 0.1 + 1.0 + 0.3) / 4))
    assert (use["e1-a"].credit.groups, use["e1-a"].credit.effect) == (2, pytest.approx(0.45))
    assert (use["e1-c"].episodes, use["e1-c"].reward, use["e1-c"].credit) == (2, 0.5, None)


# ---- settings, alarms, cost --------------------------------------------------------------------------------------------


def test_in_what_runs_differ_comes_before_what_they_share():
    shared = {"actor_rollout_ref.model.path": "/somewhere/long/qwen", "trainer.experiment_name": "x"}
    drawn = settings(
        [run(str(n), config={**shared, "actor_rollout_ref.rollout.n": n, "a.b": n, "trainer.experiment_name": n}) for n in (4, 8)]
    )
    assert drawn.index("rollouts per question") < drawn.index("1 other setting in which they differ") < drawn.index("a.b")
    assert drawn.index("a.b") < drawn.index("The same in all 2 runs") < drawn.index("long/qwen")
    assert "experiment_name" not in drawn


def test_many_runs_are_rows_and_wide_tables_are_cut(tmp_path):
    configs = [{f"some.setting_{key}": f"{key}{n}" for key in "abcdefghijkl"} for n in range(6)]
    drawn = settings([run(f"run{n}", config=config) for n, config in enumerate(configs)])
    heads = [re.findall(r"<th [^>]*>(.*?)</th>", table) for table in re.findall(r"<table.*?</table>", drawn)]
    assert [(len(head), head[0]) for head in heads] == [(9, "run"), (5, "run")]
    drawn = settings([run(f"run{n}", config=config) for n, config in enumerate(configs[:5])])
    assert re.findall(r"<th [^>]*>(.*?)</th>", drawn) == ["", "run0", "run1", "run2", "run3", "run4"]


def test_settings_of_rollouts_are_those_that_differ_and_those_that_do_not():
    drawn = rollouts({"a": {"hek": "", "top_k": 3, "model": "/x/y/z"}, "b": {"hek": "0123456789abcdef" * 4, "top_k": 3, "model": "/x/y/z"}})
    assert "Settings of 2 rollouts" in drawn and "0123456789ab</td>" in drawn and "<dt>top k</dt><dd>3</dd>" in drawn
    assert drawn.index("<table") < drawn.index("The same in all 2 runs") < drawn.index("<dd>y/z</dd>")


def test_alarms_are_listed_with_their_steps():
    steps = {step: {"hiexp/alarm/entropy": float(step in (3, 5, 6, 7)), "hiexp/alarm/reward": 0.0} for step in range(1, 9)}
    assert alarms([Training("a", steps), Training("b", steps)]) == "<ul><li><b>alarm entropy</b> at steps 3, 5 to 7 (a, b)</li></ul>"
    assert "None in 1 run." in alarms([run("a")]) and alarms([]) == ""
    assert alarms([Training("a", {}, error="HiExpError: <b>")]) == "<ul><li>ended with <b>HiExpError: &lt;b&gt;</b> (a)</li></ul>"


def test_stale_weights_are_a_fault_unless_experience_is_stripped():
    stale = run("a", **{"training/rollout_actor_probs_pearson_corr": 0.96})
    assert "Pearson below 0.99" in alarms([stale])
    assert "None in 1 run." in alarms([replace(stale, config={"hiexp.group.strip": True})])


def test_spans_of_steps_are_short():
    assert spans([4]) == "step 4"
    assert spans(range(1, 40, 2)) == "steps 1, 3, 5, 7, 9, 11, 13, 15 and 12 more"


def test_what_no_part_of_a_step_accounts_for_is_other():
    steps = [{"timing_s/step": 10.0, "timing_s/gen": 4.0, "timing_s/agent_loop/slowest": 3.0}, {"timing_s/step": 20.0, "timing_s/gen": 8.0}]
    assert parts_of(steps) == [("other", 9.0), ("gen", 6.0)]
    assert parts_of([{}]) == []


def test_validation_is_not_part_of_a_step():
    steps = {1: {"timing_s/step": 60.0, "timing_s/gen": 50.0}, 2: {"timing_s/step": 60.0, "timing_s/gen": 50.0, "timing_s/testing": 30.0}}
    assert parts_of([*steps.values()]) == [("gen", 50.0), ("testing", 15.0), ("other", 10.0)]
    drawn = cost([Training("a", steps)], {}, {})
    assert "A step takes 75.0 s.</p>" in drawn
    assert "seconds per step (trainer's clock)</th>" in drawn.replace("&#x27;", "'") and "leaves out the validation" in drawn
    assert re.findall(r'data-name="hours of \w+">([\d.]+)<', drawn) == ["0.03", "0.01"]  # 120 and 30 seconds
    untested = cost([Training("a", {1: steps[1]})], {}, {})
    assert "A step takes 60.0 s.</p>" in untested and "validation" not in untested


def test_numbers_are_short():
    found = [number(v) for v in (0.123456, 3, 12.0, 0.0, 1e-5, 1e7, float("inf"), "x", 12345, True)]
    assert found == ["0.123", "3", "12", "0", "1e-05", "1e+07", "n/a", "x", "12,345", "True"]
