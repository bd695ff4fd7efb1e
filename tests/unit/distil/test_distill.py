"""What a model writes is parsed strictly, cleaned, asked for once more, and else counted and left out."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexp_verl.distil.distillers import PromptedDistiller, open_distiller, parse_draft
from hiexp_verl.distil.draft import Draft, clean
from hiexp_verl.distil.prompts import examples_for
from hiexp_verl.distil.replies import FileReplies, prompt_key
from hiexp_verl.distil.rules import RulesDistiller
from hiexp_verl.distil.summarise import LevelConfig, level_above
from hiexp_verl.domains.diagnosis import Contrast
from hiexp_verl.domains.search import SEARCH
from hiexp_verl.domains.search.diagnose import diagnose
from hiexp_verl.errors import HiExpError
from hiexp_verl.masking import Masker
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.types import MAX_DESCRIPTION_CHARS, MAX_TITLE_CHARS
from tests.support.episodes import QUESTION, episode, two_hops
from tests.support.factories import entry
from tests.support.scripted_distiller import GOOD, Scripted, stored


def diagnosis(answer="Tehran"):
    failure = episode(("Noshak highest point country", "peak"), answer=answer)
    return diagnose(Contrast("q1", QUESTION, ("Kabul",), (two_hops(number=1),), (failure,)))[0]


def test_a_good_answer_becomes_a_draft():
    assert PromptedDistiller(Scripted([GOOD])).reflect([diagnosis()]) == [Draft(**GOOD)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no json", "not_json"),
        ("[" * 5000, "not_json"),
        ("[]", "wrong_keys"),
        (json.dumps({**GOOD, "more": 1}), "wrong_keys"),
        (json.dumps({**GOOD, "title": ""}), "no_text"),
        (json.dumps({**GOOD, "title": 7}), "no_text"),
        (json.dumps({**GOOD, "kind": "song"}), "unknown_kind"),
    ],
)
def test_what_is_no_entry_is_refused_with_a_reason(text, reason):
    assert parse_draft(text, SEARCH) == reason


@given(st.text())
def test_no_text_makes_the_parser_raise(text):
    assert isinstance(parse_draft(text, SEARCH), str | Draft)


def test_a_code_fence_is_no_fault():
    assert parse_draft(f"```json\n{json.dumps(GOOD)}\n```", SEARCH) == Draft(**GOOD)


def test_a_bad_answer_is_asked_for_once_more_with_other_examples():
    source = Scripted(["nonsense"], [GOOD])
    assert PromptedDistiller(source).reflect([diagnosis()]) == [Draft(**GOOD)]
    assert source.asked[0] != source.asked[1]


def test_what_fails_twice_is_counted_and_left_out():
    distiller = PromptedDistiller(Scripted(["nonsense", GOOD], ["nonsense"]))
    assert distiller.reflect([diagnosis(), diagnosis()]) == [None, Draft(**GOOD)]
    assert distiller.dropped == {"e1.not_json": 1}


def test_a_copied_example_is_no_experience():
    example = {key: examples_for(diagnosis(), 0, SEARCH)[0][key] for key in ("title", "description", "kind")}
    distiller = PromptedDistiller(Scripted([example], [example]))
    assert distiller.reflect([diagnosis()]) == [None]
    assert distiller.dropped == {"e1.copied_example": 1}


def test_a_description_that_repeats_the_title_is_left_out():
    echo = {**GOOD, "description": GOOD["title"]}
    distiller = PromptedDistiller(Scripted([echo], [echo]))
    assert distiller.reflect([diagnosis()]) == [None]
    assert distiller.dropped == {"e1.repeats_title": 1}


def test_advice_that_needs_the_answer_is_asked_for_again():
    told = {**GOOD, "description": "Find the country first, then search for Kabul."}
    distiller = PromptedDistiller(Scripted([told], [GOOD]))
    assert distiller.reflect([diagnosis()]) == [Draft(**GOOD)]
    distiller = PromptedDistiller(Scripted([told], [told]))
    assert distiller.reflect([diagnosis()]) == [None]
    assert distiller.dropped == {"e1.tells_answer": 1}


def test_the_prompt_holds_the_diagnosis_and_not_the_answer():
    source = Scripted([GOOD])
    PromptedDistiller(source).reflect([diagnosis()])
    prompt = source.asked[0][0]
    assert "never found out the name" in prompt
    assert "What is the capital of the country whose highest point is a mountain?" in prompt
    assert "What to do instead: Search first for what the question describes" in prompt
    assert not any(name in prompt for name in ("Kabul", "Noshak", "Afghanistan"))


def test_names_answers_and_control_text_do_not_survive():
    draft = Draft("Capital of Afghanistan <|im_end|> is Kabul", "Search for Noshak, then <answer>Kabul</answer>. Kabul it is.", "guide")
    cleaned = clean(draft, diagnosis().masker, ("Kabul",), QUESTION)
    assert cleaned is not None
    text = f"{cleaned.title} {cleaned.description}"
    assert not any(word in text for word in ("Kabul", "Noshak", "<", "im_end"))


@given(st.text(max_size=700), st.text(max_size=700))
def test_drafts_stay_within_the_caps(title, description):
    cleaned = clean(Draft(title, description, "guide"), Masker(""), (), "")
    assert cleaned is None or (len(cleaned.title) <= MAX_TITLE_CHARS and len(cleaned.description) <= MAX_DESCRIPTION_CHARS)


def test_a_group_is_summarised_from_its_titles_and_descriptions():
    source = Scripted([GOOD])
    group = [entry("e1-1", title="t one", description="d one"), entry("e1-2", title="t two", description="d two")]
    assert PromptedDistiller(source).summarise([group], "e2") == [Draft(**GOOD)]
    assert "- (t one) d one\n- (t two) d two" in source.asked[0][0]


def test_rules_write_an_order_without_names():
    (draft,) = RulesDistiller().reflect([diagnosis()])
    assert draft == Draft(
        "What is the capital of the country whose highest point is a mountain?",
        "Search first for what the question describes without naming, read its name in the passage, then search for the capital under that name.",
        "guide",
    )


def test_answers_in_files_are_read_and_missing_ones_listed(tmp_path):
    conversation = [{"role": "user", "content": "prompt"}]
    replies = FileReplies(tmp_path)
    with pytest.raises(HiExpError, match=r"prompts\.jsonl"):
        replies.reply([conversation], 0, "")
    todo = json.loads((tmp_path / "prompts.jsonl").read_text())
    assert todo == {"key": prompt_key(conversation), "messages": conversation}
    (tmp_path / f"{todo['key']}.json").write_text("answer")
    assert replies.reply([conversation], 0, "") == ["answer"]


def test_an_interrupted_run_asks_only_for_what_is_missing(tmp_path):
    a, b, c = ([{"role": "user", "content": text}] for text in "abc")
    cache = tmp_path / "answers.jsonl"
    assert stored(Scripted(["A", "B"]), cache).reply([a, b], 0, "") == ["A", "B"]
    cache.write_bytes(cache.read_bytes()[:-3])  # the crash cut the last line
    source = Scripted(["B2", "C"])
    assert stored(source, cache).reply([a, b, c, a], 0, "") == ["A", "B2", "C", "A"]
    assert source.asked == [["b", "c"]]
    untouched = Scripted()
    assert stored(untouched, cache).reply([c, a], 0, "") == ["C", "A"]
    assert untouched.asked == []


@pytest.mark.parametrize("spec", ["magic", "vllm:", "openai", "files:/nowhere", "vllm:/nowhere", "vllm-local:/nowhere"])
def test_a_specification_that_names_no_distiller_is_a_one_line_error(spec):
    with pytest.raises(HiExpError) as error, open_distiller(spec):
        pass
    assert "\n" not in str(error.value)


def test_members_are_confirmed_by_yes_or_no_and_nonsense_counts_as_yes():
    said = [json.dumps({"holds": "yes"}), json.dumps({"holds": "no"}), "perhaps", json.dumps(["no"])]
    distiller = PromptedDistiller(Scripted(said))
    pairs = [(Draft(**GOOD), entry(title=f"case {i}")) for i in range(4)]
    assert distiller.confirm(pairs) == [True, False, True, True]
    assert distiller.dropped == {"unclear_confirmation": 2}
    assert distiller.confirm([]) == []


def test_a_member_that_the_distiller_denies_is_detached():
    class Denies(RulesDistiller):
        def confirm(self, pairs):
            return [member.title != "case c" for _, member in pairs]

    entries = [entry(f"e1-{i}", title=f"case {name}", shapes=("direct",), findings=("no_answer",)) for i, name in enumerate("abcd")]
    config = LevelConfig(max_height=9.0)
    (all_of_them,), *_ = level_above(entries, "e2", RulesDistiller(), HashEncoder(64), config)
    (without_one,), _, dropped = level_above(entries, "e2", Denies(), HashEncoder(64), replace(config, confirm=True))
    assert all_of_them.children == ("e1-0", "e1-1", "e1-2", "e1-3")
    assert without_one.children == ("e1-0", "e1-1", "e1-3")
    assert dropped["e2.detached"] == 1


def test_a_description_over_the_cap_is_asked_for_again_and_not_cut():
    long = {**GOOD, "description": "First find the country. " * 20}
    distiller = PromptedDistiller(Scripted([long], [GOOD]))
    assert distiller.reflect([diagnosis()]) == [Draft(**GOOD)]
    distiller = PromptedDistiller(Scripted([long], [long]))
    assert distiller.reflect([diagnosis()]) == [None]
    assert distiller.dropped == {"e1.too_long": 1}
