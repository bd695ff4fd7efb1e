"""What went wrong is computed right, on episodes where a person can see it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexp_verl.distil.rules import advice_for
from hiexp_verl.domains.diagnosis import Contrast
from hiexp_verl.domains.search import SEARCH
from hiexp_verl.domains.search.diagnose import diagnose
from hiexp_verl.masking import Masker, redact
from hiexp_verl.protocol import Search, searches, text_of
from hiexp_verl.wording import asked_for, shape_of
from tests.support.episodes import PASSAGES, QUESTION, episode, two_hops


def contrast(*failures, success=None, question=QUESTION, answers=("Kabul",)) -> Contrast:
    successes = () if success is False else (success or two_hops(number=9),)
    return Contrast("q1", question, answers, successes, failures)


def finding(*failures, **fields) -> str:
    return diagnose(contrast(*failures, **fields))[0].finding


def test_searches_are_read_in_both_dialects_and_experience_is_no_document():
    tags = [
        {"role": "assistant", "content": "<search> a </search>"},
        {"role": "tool", "content": "<information>\nd1\n</information>\n<experience>\n- x\n</experience>"},
    ]
    hermes = [
        {"role": "assistant", "content": '<tool_call>{"name": "search", "arguments": {"query": "a"}}</tool_call>'},
        {"role": "tool", "content": "d1"},
    ]
    parsed = [
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "search", "arguments": '{"query": "a"}'}}]},
        {"role": "tool", "content": [{"type": "text", "text": "d1"}]},
    ]
    for messages in (tags, hermes, parsed):
        assert searches(messages) == [Search("a", "d1", 0, 1)]


def test_calls_that_are_broken_are_no_searches():
    for text in ("<search> </search>", "<search>a", "<tool_call>{</tool_call>", '<tool_call>["search"]</tool_call>', "<search>a<search>"):
        assert searches([{"role": "assistant", "content": text}]) == []
    assert searches([{"role": "user", "content": "<search>a</search>"}]) == []


def test_the_last_complete_answer_counts():
    assert SEARCH.final_answer([{"role": "assistant", "content": "<answer>a</answer> <answer> b </answer> <answer>c"}]) == "b"
    assert SEARCH.final_answer([{"role": "tool", "content": "<answer>a</answer>"}]) == ""


CALL = '<tool_call>{"name": "search", "arguments": {"query": "x"}}</tool_call>'


@pytest.mark.parametrize(
    ("turns", "answer"),
    [
        (["guess <answer>Paris</answer> <search>x</search>", "I do not know"], ""),
        ([f"guess <answer>Paris</answer> {CALL}"], ""),
        (["<search>x</search> <answer>Paris</answer>"], ""),
        (["guess <answer>Paris</answer> <search>x</search>", "<answer>Rome</answer>"], "Rome"),
        (["<search>x</search><information>Doc</information><answer>Rome</answer>"], "Rome"),  # an episode in one message
        (["<answer>Paris</answer><search>x</search><information><answer>Rome</answer>"], "Paris"),  # the answer ended it
        (["<search>x</search><information><answer>Rome</answer>"], ""),
    ],
)
def test_a_turn_that_searches_does_not_answer(turns, answer):
    assert SEARCH.final_answer([{"role": "assistant", "content": turn} for turn in turns]) == answer
    parsed = {"role": "assistant", "content": "<answer>Paris</answer>", "tool_calls": [{"function": {"arguments": '{"query": "x"}'}}]}
    assert SEARCH.final_answer([parsed]) == ""


@given(
    st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["assistant", "tool", "user"]), "content": st.one_of(st.none(), st.text(), st.lists(st.integers()))}
        )
    )
)
def test_odd_messages_never_raise(messages):
    searches(messages)
    SEARCH.final_answer(messages)
    assert all(isinstance(text_of(m), str) for m in messages)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (episode(("Noshak", "peak"), answer=""), "no_answer"),
        (episode(("Noshak", "peak"), answer="city of Kabul", correct=False), "answer_form"),
        (episode(answer="Tehran"), "never_searched"),
        (
            episode(("Noshak highest point country", "peak"), ("capital of Afghanistan", "capital"), answer="Herat"),
            "answer_retrieved_but_missed",
        ),
        (episode(("Noshak highest point country", "peak other"), ("capital of Tajikistan", "other"), answer="Dushanbe"), "wrong_entity"),
        (episode(("Noshak highest point country", "peak"), ("Noshak capital", "peak"), answer="Tehran"), "entity_never_resolved"),
        (episode(("capital Noshak", "bread"), ("capital Noshak", "bread"), answer="Tehran"), "entity_never_resolved"),
    ],
)
def test_a_failure_is_named_by_what_decided_it(failure, expected):
    assert finding(failure) == expected


FILMS, RIVERS = "Which film came out first, Blind Shaft or The Mask of Fu Manchu?", "Are the Rhine and the Main in the same country?"
FOUNDED, HOPS = "When was the town of Noshak founded?", "Which town did the 6th duke of Noshak found?"
OF_ANOTHER_KIND = "answer_of_another_kind"


@pytest.mark.parametrize(
    ("question", "answer", "prediction", "kind"),
    [
        (FILMS, "The Mask of Fu Manchu", "1932", OF_ANOTHER_KIND),
        (FILMS, "The Mask of Fu Manchu", "Li Yang", OF_ANOTHER_KIND),
        (FILMS, "The Mask of Fu Manchu", "Blind Shaft", ""),  # the wrong one of the two
        (FILMS, "The Mask of Fu Manchu", "Blind Shaft, a film of 2003", ""),
        (RIVERS, "yes", "Germany", OF_ANOTHER_KIND),
        (RIVERS, "yes", "No", ""),
        (RIVERS, "yes", "No, they are not", ""),
        (FOUNDED, "18 November 1349", "its first duke", OF_ANOTHER_KIND),
        (FOUNDED, "18 November 1349", "1350", ""),
        (FOUNDED, "two years later", "its first duke", ""),  # not a number
        (HOPS, "Castle of Henry the 6th", "its first duke", ""),
    ],
)
def test_an_answer_of_another_kind_than_is_asked_for_is_seen(question, answer, prediction, kind):
    passage = 'Doc 1(Title: "Noshak") It lies on a hill.'
    good = episode(("Noshak", passage), answer=answer, number=9)
    failed = diagnose(contrast(episode(("Noshak", passage), answer=prediction), success=good, question=question, answers=(answer,)))[0]
    assert (OF_ANOTHER_KIND in (failed.finding, *failed.also)) == bool(kind)


def test_a_choice_that_was_answered_with_a_value_is_told_to_name_what_it_chose():
    passage = 'Doc 1(Title: "Blind Shaft") Blind Shaft is a 2003 film.'
    good = episode(("The Mask of Fu Manchu", passage), answer="The Mask of Fu Manchu", number=9)
    found = contrast(episode(("Blind Shaft", passage), answer="2003"), success=good, question=FILMS, answers=("The Mask of Fu Manchu",))
    assert advice_for(diagnose(found)[0], SEARCH).description == (
        "Answer with the film alone, by the name of one of the two in the question. Dates, numbers and people found on the way only "
        "serve the comparison."
    )


def test_putting_both_things_into_one_query_is_seen():
    question = "Which film came out first, Blind Shaft or The Mask of Fu Manchu?"
    docs = 'Doc 1(Title: "Blind Shaft") Blind Shaft is a 2003 film.'
    good = episode(
        ("Blind Shaft release date", docs),
        ("The Mask of Fu Manchu release date", "bread"),
        answer="The Mask of Fu Manchu",
        question=question,
        answers=("The Mask of Fu Manchu",),
    )
    bad = episode(
        ("Blind Shaft or The Mask of Fu Manchu first", "bread"), answer="Blind Shaft", question=question, answers=("The Mask of Fu Manchu",)
    )
    (found,) = diagnose(contrast(bad, success=good, question=question, answers=("The Mask of Fu Manchu",)))
    assert (found.finding, found.shape) == ("two_in_one_query", "compare")


def test_a_repeated_query_is_seen_when_the_success_never_resolved_a_name():
    good = episode(("capital Noshak country", "capital"))
    assert finding(episode(("capital Noshak", "bread"), ("Noshak capital", "bread"), answer="Tehran"), success=good) == "repeated_query"


def test_the_evidence_is_kept():
    failure = episode(("Noshak highest point country", "peak"), answer="Tehran", number=3)
    (found,) = diagnose(contrast(failure))
    assert found.finding == "entity_never_resolved"
    assert (found.also, found.part_at) == (("stopped_early", "answer_never_retrieved"), 1)
    assert (found.shape, found.asked_for) == ("indirect", "capital")
    assert found.succeeded is not None
    assert found.succeeded.bridge == "Afghanistan"
    assert found.failed.trajectory_id == "q1#3"
    assert found.kind_of_question == "What is the capital of the country whose highest point is a mountain?"


def test_the_success_with_evidence_is_the_model():
    lucky, sound = episode(answer="Kabul", number=1), two_hops(number=2)
    both = Contrast("q1", QUESTION, ("Kabul",), (lucky, sound), (episode(answer="Tehran"),))
    succeeded = diagnose(both)[0].succeeded
    assert succeeded is not None
    assert succeeded.trajectory_id == "q1#2"


def test_different_failures_of_a_question_give_different_diagnoses():
    failures = [episode(answer="Tehran", number=1), episode(answer="Rome", number=2), episode(("Noshak", "peak"), answer="", number=3)]
    assert [d.finding for d in diagnose(contrast(*failures))] == ["never_searched", "no_answer"]
    assert len(diagnose(contrast(*failures), most=1)) == 1


def test_failures_alone_can_be_diagnosed():
    (found,) = diagnose(contrast(episode(answer="Tehran"), success=False))
    assert (found.finding, found.succeeded) == ("never_searched", None)


@pytest.mark.parametrize(
    ("question", "shape", "asked"),
    [
        ("Which of the two is older, X or Y?", "compare", "answer"),
        ("What profession does X and Y have in common?", "common", "profession"),
        ("What profession do X and Y share?", "common", "profession"),
        ("What is the share of forest in the land use of the country whose capital is X?", "indirect", "share"),
        ("Are X and Y both from the same state?", "verify", "yes or no"),
        ("What is the currency of the country whose capital is X?", "indirect", "currency"),
        ("When did the country whose capital is X become independent?", "indirect", "date"),
        ("Who directed X?", "direct", "person"),
        ("How many employees does X have?", "direct", "number"),
        ("When did X die?", "direct", "date"),
        ("Where was X born?", "direct", "place"),
        ("Which film came out earlier, X or Y?", "compare", "film"),
        ("X was based on what novel written by an author?", "direct", "novel"),
        ("X contains Y and what else?", "direct", "answer"),
    ],
)
def test_shape_and_what_is_asked_for_are_read_off_the_wording(question, shape, asked):
    assert (shape_of(question), asked_for(question)) == (shape, asked)


def test_names_become_kinds_where_a_passage_tells_and_letters_elsewhere():
    docs = ['Doc 1(Title: "Suicide Kings") Suicide Kings is a 1997 American crime film directed by X.', PASSAGES["peak"]]
    masker = Masker("Who directed Suicide Kings?", docs)
    assert masker.mask("Who directed Suicide Kings?") == "Who directed a film?"
    assert masker.mask("Noshak highest point country") == "a mountain highest point country"
    assert masker.mask("What did Josh Gad do on July 31, 1974 and in 1999?") == "What did X do on a given date and in a given year?"
    assert masker.mask("The 1997 American actor with 12 roles") == "The actor with some number roles"
    assert masker.mask_known("Search for Suicide Kings first. Then Read it.") == "Search for the film first. Then Read it."


def test_answers_are_redacted_unless_the_question_gives_them():
    assert (
        redact("Kabul is the capital; not kabul-ish Kabuli.", ["Kabul"], QUESTION)
        == "the answer is the capital; not the answer-ish Kabuli."
    )
    assert redact("go to the Noshak", ["Noshak"], QUESTION) == "go to the Noshak"
    assert redact("Say yes only if both agree", ["yes"], QUESTION) == "Say yes only if both agree"
    assert redact("The Home Rule League won", ["Home Rule League", "League"], "Who won?") == "the answer won"


@given(st.text(max_size=200), st.text(max_size=60))
def test_masking_never_raises_and_never_leaves_a_known_name(text, question):
    assert "Afghanistan" not in Masker(question, [PASSAGES["peak"]]).mask(f"{text} Afghanistan {text}")
