"""Trajectories in, a HEK out: linked, free of answers, the same every time."""

import re
from collections import Counter
from dataclasses import replace

import pytest

from hiexp_verl.distil.distillers import PromptedDistiller
from hiexp_verl.distil.entries import merge_near_duplicates
from hiexp_verl.distil.pipeline import DistilSettings, distil
from hiexp_verl.distil.replies import Usage
from hiexp_verl.distil.rules import RulesDistiller
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek import HEK, Retriever
from hiexp_verl.io.datasets import read_trajectories
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.scoring import cem
from tests.support.episodes import COUNTRIES, episode, trajectories, two_hops
from tests.support.factories import entry
from tests.support.paths import MULTIHOP, needs_multihop
from tests.support.r1_searcher import read_r1_searcher
from tests.support.scripted_distiller import GOOD, Scripted

ENCODER = HashEncoder(128)


def test_a_build_gives_linked_levels():
    built = distil(trajectories(), RulesDistiller(), ENCODER)
    hek = built.hek
    assert built.report.counts["questions_contrasted"] == 8
    assert hek.levels["e1"] >= 4
    assert hek.levels["e2"] >= 1
    for parent in (e for e in hek.entries if e.level != "e1"):
        children = [hek.entry(child) for child in parent.children]
        assert set(parent.questions) == {q for child in children for q in child.questions}
    sources = {t.id for t in trajectories()}
    assert all(e.sources and set(e.sources) <= sources for e in hek.entries)
    assert hek.levels["e3"] >= 1
    assert built.report.tool_fire_rate >= 0.3  # lowered for it: these questions are all alike
    # No minimum score for the start: nothing reads one, as the paper has none there.
    assert set(hek.header.thresholds) == {"tool_min_score", "percentile", "e1_ward_max_height", "e2_ward_max_height"}
    assert set(hek.header.prompts) == {"rules_e1.jsonl", "rules_e2.jsonl", "rules_e3.jsonl"}


def test_no_entry_names_a_thing_or_gives_an_answer_away():
    for e in distil(trajectories(), RulesDistiller(), ENCODER).hek.entries:
        text = f"{e.title} {e.description}"
        assert not any(name in text for country in COUNTRIES for name in country), text


def test_questions_of_a_kind_share_entries_so_leave_one_out_still_finds_some():
    hek = distil(trajectories(), RulesDistiller(), ENCODER).hek
    first = trajectories()[0]
    (hits,) = Retriever(hek, ENCODER).retrieve([first.question], ["e1"], 3, exclude_questions=[first.question_id])
    assert hits
    assert "capital" in hits[0].entry.title


def test_the_same_input_gives_the_same_bytes(tmp_path):
    a, b = (distil(trajectories(), RulesDistiller(), HashEncoder(128)).hek.save(tmp_path / name) for name in "ab")
    assert [(a / f.name).read_bytes() for f in sorted(b.iterdir())] == [f.read_bytes() for f in sorted(b.iterdir())]
    assert HEK.load(a).entries == HEK.load(b).entries


def test_trajectories_from_a_file_give_the_same_hek(tmp_path):
    write_jsonl(tmp_path / "t.jsonl", trajectories())
    again = distil(read_trajectories(tmp_path / "t.jsonl"), RulesDistiller(), ENCODER)
    assert again.hek.entries == distil(trajectories(), RulesDistiller(), ENCODER).hek.entries


def test_what_a_model_could_not_write_is_counted():
    everything = ["nonsense"] * 50
    with pytest.raises(HiExpError, match="e1 not JSON"):
        distil(trajectories(), PromptedDistiller(Scripted(everything, everything)), ENCODER)
    built = distil(
        trajectories(), PromptedDistiller(Scripted([GOOD] * 8, ["nonsense"] * 50)), ENCODER, DistilSettings(cases_per_question=1)
    )
    counts = built.report.counts
    # One answer for all diagnoses: it misses the point of some, and of the rest all but one are near-duplicates.
    assert counts["left_out.e1.lost_point"] + counts["left_out.e1.near_duplicate"] + counts["written.e1"] == 8
    assert min(counts["left_out.e1.lost_point"], counts["left_out.e1.near_duplicate"]) > 0


def test_summaries_that_the_model_cannot_write_are_computed_and_say_so():
    class OnlyCases(RulesDistiller):
        def summarise(self, groups, level):
            return [None] * len(groups)

    built = distil(trajectories(), OnlyCases(), ENCODER, DistilSettings(plans="case"))
    above = [entry for entry in built.hek.entries if entry.level != "e1"]
    assert {entry.level for entry in above} == {"e2", "e3"}
    assert built.report.counts["left_out.e2.by_rule"] >= built.report.counts["written.e2"] > 0
    assert all("written:rules" in entry.tags for entry in above)
    assert not any("written:rules" in entry.tags for entry in distil(trajectories(), RulesDistiller(), ENCODER).hek.entries)


@pytest.mark.parametrize("wrong", [[], [two_hops()], [episode(answer="Rome")]])
def test_nothing_to_contrast_is_a_one_line_error(wrong):
    with pytest.raises(HiExpError, match="no experience") as error:
        distil(wrong, RulesDistiller(), ENCODER)
    assert "\n" not in str(error.value)


def test_failures_alone_give_experience_on_request():
    made = [t for t in trajectories() if not t.correct]
    assert distil(made, RulesDistiller(), ENCODER, DistilSettings(single_sided=True)).hek.levels["e1"] > 0


def test_near_duplicates_unite_what_they_come_from():
    a = entry("", title="capital of a country", questions=("q1",), sources=("t1",))
    b = entry("", title="capital of a country", questions=("q2",), sources=("t2",))
    other = entry("", title="who wrote a book", description="Find the book.", questions=("q3",))
    merged = merge_near_duplicates([a, other, b], ENCODER)
    assert [(e.questions, e.sources) for e in merged] == [(("q1", "q2"), ("t1", "t2")), (("q3",), ())]


@needs_multihop
def test_real_trajectories_give_entries_without_answers():
    made = list(read_r1_searcher(MULTIHOP))
    assert len(made) == 900
    built = distil(made, RulesDistiller(), ENCODER)
    assert built.report.counts["questions_contrasted"] == 41
    answers = {t.question_id: t for t in made}
    for e in (e for e in built.hek.entries if e.level == "e1" and len(e.questions) == 1):
        source = answers[e.questions[0]]
        telling = [a for a in source.answers if a.lower() not in ("yes", "no") and not cem(source.question, [a])]
        assert not telling or not cem(f"{e.title} {e.description}", telling), e
        assert not re.search(r"[<>{}]", e.title + e.description)


def test_what_any_distiller_took_and_dropped_is_in_the_report():
    class Asking(RulesDistiller):
        usage = Usage(calls=3, prompt_tokens=30, completion_tokens=12)

        @property
        def dropped(self):
            return Counter({"e1.no_json": 2})

    report = distil(trajectories(), Asking(), ENCODER).report
    assert report.usage == Asking.usage
    assert report.counts["left_out.e1.no_json"] == 2


def test_questions_in_another_language_are_warned_of_once(caplog):
    given = trajectories()
    distil(given, RulesDistiller(), ENCODER)
    assert "another language" not in caplog.text
    distil([replace(t, question=f"Welcher Fluss flie\u00dft durch Stadt {t.question_id}?") for t in given], RulesDistiller(), ENCODER)
    assert caplog.text.count("8 of 8 questions seem to be in another language than English") == 1


def test_advice_in_another_script_than_the_questions_is_refused_with_what_to_do():
    given = [replace(t, question=f"\u54ea\u6761\u6cb3\u6d41\u7ecf\u57ce\u5e02{t.question_id[-1]}") for t in trajectories()]
    with pytest.raises(HiExpError, match=r"another script than the question's.*; give a --distiller that writes as the questions do"):
        distil(given, RulesDistiller(), ENCODER)
