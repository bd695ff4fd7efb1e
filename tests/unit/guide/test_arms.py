"""Arms change one respect of the experience and nothing else."""

import asyncio

import pytest

from hiexp_verl.config import ARMS, MEANING_OF, PromptConfig, ToolConfig, parse_config
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.arms import levels_at, random_entries, shuffled
from hiexp_verl.guide.episode import Guidance
from hiexp_verl.guide.lookup import ExperienceRequest, Lookup
from hiexp_verl.hek.retrieve import Retriever
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.types import Plan
from tests.support.factories import entry, hek_of

ENCODER = HashEncoder(64)
WORDS = ["river", "mountain", "capital", "author", "film", "bridge"]
HEK = hek_of(
    [
        entry(f"e1-{i}", "e1", title=f"length of the {word}", description=f"about {word}", questions=(f"q{i}",))
        for i, word in enumerate(WORDS)
    ]
    + [entry(f"e2-{i}", "e2", title=f"questions on a {word}", description=f"pattern {word}") for i, word in enumerate(WORDS)]
    + [entry("e3-0", "e3", title="any question", description="strategy")],
    ENCODER,
)


def found(arm, place="tool", text="length of the film", question=None):
    lookup = Lookup(Retriever(HEK, ENCODER), PromptConfig(top_k=3), ToolConfig(min_score=-1.0))
    return asyncio.run(lookup(ExperienceRequest(place, text, question, arm=arm)))


def ids(hits):
    return [hit.entry.id for hit in hits]


def test_full_is_the_method_as_it_is():
    assert ids(found("full")) == ["e1-4"]
    assert {hit.entry.level for hit in found("full", "prompt", "questions on a film")} == {"e2", "e3"} or len(found("full", "prompt")) == 3


@pytest.mark.parametrize(
    ("arm", "prompt", "tool"),
    [
        ("none", (), ()),
        ("prompt", ("e3", "e2"), ()),
        ("tool", (), ("e1",)),
        ("e1", (), ("e1",)),
        ("e2", ("e2",), ()),
        ("e3", ("e3",), ()),
        ("random", ("e3", "e2"), ("e1",)),
    ],
)
def test_levels_are_left_out_by_place(arm, prompt, tool):
    assert (levels_at(arm, "prompt"), levels_at(arm, "tool")) == (prompt, tool)
    assert {hit.entry.level for hit in found(arm, "prompt", "questions on a film")} <= set(prompt)
    assert [hit.entry.level for hit in found(arm)] == list(tool)


def test_one_level_has_the_same_budget_of_entries():
    assert ids(found("e3", "prompt")) == ["e3-0"]
    assert len(found("e2", "prompt")) == 3


def test_shuffled_shows_each_entry_for_the_title_of_another_one():
    turned = shuffled(HEK)
    assert turned.entries == HEK.entries
    rows = [row for row, e in enumerate(HEK.entries) if e.level == "e1"]
    assert not any((turned.vectors_E_D[row] == HEK.vectors_E_D[row]).all() for row in rows)
    assert sorted(turned.vectors_E_D[rows].tolist()) == sorted(HEK.vectors_E_D[rows].tolist())
    (hit,) = found("shuffled")
    assert hit.entry.id != "e1-4" and hit.score == pytest.approx(found("full")[0].score)


def test_a_hek_without_a_level_can_be_shuffled():
    two = hek_of([entry("e1-0", title="rivers"), entry("e1-1", title="bridges")], ENCODER)
    assert (shuffled(two).vectors_E_D == two.vectors_E_D[::-1]).all()


def test_who_would_get_a_plan_gets_a_wrong_plan_when_shuffled():
    def moved(planned, others):
        plan = Plan("Who made ...?", ("the maker of ...",))
        entries = [
            entry(f"e2-{i}", "e2", title=word, plans=(plan,) if i < planned else ()) for i, word in enumerate(WORDS[: planned + others])
        ]
        turned = shuffled(bank := hek_of(entries, ENCODER)).vectors_E_D
        came_from = [int((bank.vectors_E_D @ row).argmax()) for row in turned]
        assert all(place != row for row, place in enumerate(came_from)) and sorted(came_from) == list(range(len(entries)))
        return came_from

    assert sorted(moved(3, 3)[:3]) == [0, 1, 2], "a plan for a plan"
    assert moved(2, 0) == [1, 0]
    assert moved(1, 3)[0] > 0, "a single plan changes with the rest"


def test_random_shows_as_many_drawn_by_the_text_alone():
    texts = [f"length of the {word} {n}" for word in WORDS for n in range(5)]
    drawn_ids = [ids(found("random", text=text)) for text in texts]
    assert drawn_ids == [ids(found("random", text=text)) for text in texts]
    assert all(len(one) == 1 for one in drawn_ids)
    assert len({one[0] for one in drawn_ids}) == len(WORDS)


def test_random_hides_what_leave_one_out_hides():
    texts = [f"length {n}" for n in range(40)]
    assert "e1-4" in {ids(found("random", text=text))[0] for text in texts}
    assert "e1-4" not in {ids(found("random", text=text, question="q4"))[0] for text in texts}


def test_a_level_that_runs_out_is_not_filled_from_another():
    (hit,) = found("full", text="length of the film")
    assert random_entries([hit, hit], "text", [hit.entry]) == [hit]


def test_the_own_question_is_hidden_except_to_measure_the_leak():
    assert ids(found("full", question="q4")) != ["e1-4"]
    assert ids(found("own-question", question="q4")) == ["e1-4"]


def test_one_lookup_serves_requests_of_several_arms_in_one_batch():
    lookup = Lookup(Retriever(HEK, ENCODER), PromptConfig(top_k=3), ToolConfig(min_score=-1.0))

    async def together():
        return await asyncio.gather(*(lookup(ExperienceRequest("tool", "length of the film", arm=arm)) for arm in ARMS))

    assert [ids(hits) for hits in asyncio.run(together())] == [ids(found(arm)) for arm in ARMS]


def test_every_arm_has_a_meaning_for_people():
    assert set(MEANING_OF) == set(ARMS)


def test_an_unknown_arm_is_refused_and_the_old_name_of_the_setting_names_the_new_one():
    with pytest.raises(HiExpError, match=r"hiexp.arm must be one of full, none, prompt"):
        parse_config({"arm": "placebo"})
    with pytest.raises(HiExpError, match=r"unknown setting hiexp.control; it is called arm"):
        parse_config({"control": "random"})


@pytest.mark.parametrize(
    ("old", "new"),
    [("base", "none"), ("hek", "full"), ("start-only", "prompt"), ("hek-step", "tool"), ("with-own-question", "own-question")],
)
def test_an_earlier_name_of_an_arm_is_an_error_that_names_the_present_one(old, new):
    with pytest.raises(HiExpError, match=f"the arm '{old}' is called '{new}' now"):
        Guidance(arm=old)
    with pytest.raises(HiExpError, match=f"hiexp.group.arms: the arm '{old}' is called '{new}' now"):
        parse_config({"group": {"arms": ["none", old]}})
    with pytest.raises(HiExpError, match="unknown arm 'fulll'; use one of full, none"):
        Guidance(arm="fulll")
