"""Diagnoses of real failures against labels that a person gave after reading both transcripts of each question."""

import pytest

from hiexp_verl.distil.contrast import contrasts
from hiexp_verl.domains.diagnosis import Diagnosis
from hiexp_verl.domains.search.diagnose import diagnose
from hiexp_verl.protocol import text_of
from hiexp_verl.types import Trajectory
from tests.support.paths import MULTIHOP
from tests.support.r1_searcher import read_r1_searcher

pytestmark = pytest.mark.skipif(not MULTIHOP.is_file(), reason="the real trajectories are not here")

# The findings that a reader accepts as the decisive one.
LABELS = {
    "hotpotqa-8#0": "never_searched",
    "hotpotqa-12#1": "answer_retrieved_but_missed",
    "hotpotqa-14#0": "answer_retrieved_but_missed dropped_condition",
    "hotpotqa-17#0": "answer_repeats_question stopped_early",
    "hotpotqa-22#1": "answer_retrieved_but_missed",
    "hotpotqa-25#1": "answer_form",
    "hotpotqa-26#0": "answer_retrieved_but_missed stopped_early",
    "hotpotqa-43#0": "wrong_entity dropped_condition",
    "hotpotqa-48#1": "wrong_entity whole_question_query",
    "hotpotqa-57#1": "answer_form",
    "hotpotqa-75#0": "dropped_condition answer_never_retrieved",
    "hotpotqa-79#1": "wrong_entity whole_question_query answer_never_retrieved",
    "hotpotqa-82#1": "two_in_one_query",
    "hotpotqa-84#0": "answer_form",
    "hotpotqa-90#0": "answer_retrieved_but_missed answer_form",
    "hotpotqa-98#0": "answer_form",
    "hotpotqa-103#0": "answer_retrieved_but_missed",
    "hotpotqa-117#0": "answer_retrieved_but_missed stopped_early",
    "hotpotqa-118#0": "answer_retrieved_but_missed wrong_entity dropped_condition",
    "hotpotqa-121#1": "answer_retrieved_but_missed",
    "hotpotqa-134#0": "answer_retrieved_but_missed misjudged",
    "hotpotqa-135#1": "answer_form",
    "hotpotqa-143#1": "two_in_one_query",
    "hotpotqa-147#1": "two_in_one_query",
    "hotpotqa-154#1": "two_in_one_query",
    "hotpotqa-179#0": "answer_form",
    "hotpotqa-187#1": "two_in_one_query",
    "hotpotqa-191#0": "wrong_entity dropped_condition",
    "hotpotqa-194#0": "answer_retrieved_but_missed",
    "hotpotqa-195#1": "answer_form two_in_one_query",
    "hotpotqa-205#0": "misjudged",
    "hotpotqa-206#1": "misjudged",
    "hotpotqa-218#1": "two_in_one_query",
    "hotpotqa-221#1": "answer_form whole_question_query",
    "hotpotqa-223#0": "answer_retrieved_but_missed dropped_condition",
    "hotpotqa-232#1": "two_in_one_query",
    "hotpotqa-236#1": "two_in_one_query",
    "hotpotqa-239#1": "answer_retrieved_but_missed",
    "hotpotqa-249#0": "answer_retrieved_but_missed answer_repeats_question",
    "hotpotqa-267#1": "two_in_one_query",
    "hotpotqa-299#1": "two_in_one_query",
}
# Read by a person as another form of the answer, as one query for two things, as a malformed answer; not seen by the checks.
MISSED = {"hotpotqa-25#1", "hotpotqa-143#1", "hotpotqa-221#1"}


@pytest.fixture(scope="module")
def real() -> tuple[dict[str, Diagnosis], dict[str, Trajectory]]:
    trajectories = [t for t in read_r1_searcher(MULTIHOP) if t.question_id.startswith("hotpotqa")]
    kept, _ = contrasts(trajectories)
    return {d.failed.trajectory_id: d for c in kept for d in diagnose(c)}, {t.id: t for t in trajectories}


def test_38_of_41_real_failures_are_named_as_a_reader_names_them(real):
    diagnoses, _ = real
    assert set(diagnoses) == set(LABELS)
    assert {id for id, diagnosis in diagnoses.items() if diagnosis.finding not in LABELS[id].split()} == MISSED


def test_evidence_points_at_what_it_quotes(real):
    diagnoses, trajectories = real
    for diagnosis in diagnoses.values():
        places = {(e.trajectory, e.what) for e in diagnosis.evidence}
        assert (diagnosis.failed.trajectory_id, "ends here") in places
        for e in diagnosis.evidence:
            text = text_of(trajectories[e.trajectory].messages[e.message])
            assert 0 <= e.start < e.end <= len(text)
            spanned = text[e.start : e.end]
            redacted = spanned not in e.quote
            assert not redacted or "the answer" in e.quote or len(e.quote) >= 190, (spanned, e.quote)


def test_no_quote_tells_the_answer_unless_the_question_does(real):
    from hiexp_verl.distil.validate import tells

    diagnoses, _ = real
    assert [d.question for d in diagnoses.values() for e in d.evidence if tells(e.quote, d.question, d.answers)] == []
