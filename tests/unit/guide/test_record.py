"""What is known of an episode survives JSON, and several add up."""

import json
import re

import pytest

from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.record import EpisodeRecord, Totals, aggregate, share
from tests.support.factories import trajectory

E1 = {"entry": "e1-a", "content": "0a", "level": "e1", "score": 0.9, "place": "tool", "tokens": 7}
E2 = {"entry": "e2-a", "content": "0b", "level": "e2", "score": 0.5, "place": "prompt", "tokens": 5}
GUIDED = EpisodeRecord(
    "q1",
    "Capital?",
    arm="full",
    shown=(E2, {**E1, "search": 1}, {**E1, "entry": "e1-b", "search": 1}),
    dropped=2,
    e1_repeats=1,
    queries=("a", "a"),
    repeated_queries=1,
    searches=2,
    failed_searches=1,
    lookups=3,
    lookup_failures=1,
    stop="answer",
    completion_tokens=30,
)
FAILED = EpisodeRecord("q2", "Who?", searches=1, failed_searches=1)


def test_a_record_survives_json_and_leaves_out_what_is_not_known():
    text = json.dumps(GUIDED.to_json())
    assert EpisodeRecord.from_json(json.loads(text)) == GUIDED
    assert not {"split", "stripped", "seconds"} & json.loads(text).keys()


def test_a_trajectory_keeps_what_it_has_not_itself():
    extra = GUIDED.extra()
    assert not {"question_id", "question", "messages", "answer_text"} & extra.keys()
    kept = trajectory("q1", extra={**extra, "em": 1.0}, question="Capital?")
    assert EpisodeRecord.of(kept) == GUIDED
    assert EpisodeRecord.of(trajectory("q1")).searches == 0


@pytest.mark.parametrize(
    ("extra", "fault"),
    [
        ({"shown": [{"entry": "e1-0001"}]}, "episode q1#0.shown.content is missing"),
        ({"shown": "e1-0001"}, "episode q1#0.shown must be a list, found 'e1-0001'"),
        ({"searches": []}, "episode q1#0.searches must be "),
        ({"seconds": float("nan")}, "episode q1#0.seconds must be finite, found nan"),
    ],
)
def test_what_another_program_wrote_into_an_episode_is_refused_by_its_name(extra, fault):
    with pytest.raises(HiExpError, match=re.escape(fault)):
        EpisodeRecord.of(trajectory("q1", extra=extra))


def test_episodes_add_up():
    totals = aggregate([GUIDED, FAILED])
    assert (totals.episodes, totals.searches, totals.failed_searches, totals.repeated_queries) == (2, 3, 2, 1)
    assert (totals.lookups, totals.lookup_failures, totals.dropped, totals.e1_repeats) == (3, 1, 2, 1)
    assert (totals.completion_tokens, totals.experience_tokens) == (30, 19)
    assert totals.e1_fired == 1, "two entries beside the documents of one search"
    assert (totals.searched, totals.answered_search, totals.guided, totals.prompt_hits, totals.prompt_entries) == (2, 1, 1, 1, 1)
    assert (totals.level_hits, totals.stops) == ({"e1": 1, "e2": 1}, {"answer": 1, "": 1})
    assert totals.mean("searches") == 1.5
    assert aggregate([]) == Totals() and Totals().mean("searches") == share(1, 0) == 0.0
