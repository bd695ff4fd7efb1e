"""What the teacher of a round reads, decoded back; and the version of the HEK that it reads from."""

import pytest

pytestmark = pytest.mark.verl
pytest.importorskip("verl")

from hiexp_verl.config import EncoderConfig, HiExpConfig, SelfDistilConfig
from hiexp_verl.guide.lookup import LookupFailed
from hiexp_verl.hek.opening import pinned
from hiexp_verl.hek.store import HEK
from hiexp_verl.internalise.kinds import KINDS
from hiexp_verl.models.encoder import load_encoder
from hiexp_verl.plugin.distil_alone import written_of
from hiexp_verl.plugin.loop import Version
from hiexp_verl.plugin.retrieval import LocalRetrieval
from hiexp_verl.plugin.teacher import Chosen, Teacher
from hiexp_verl.types import Entry
from tests.support.chat_families import families, tokenizer_of
from tests.support.factories import trajectory
from tests.support.verl_fixtures import tiny_tokenizer, write_hek

QUESTION = "What is the capital of the country whose highest point is Noshak?"
OPENING = ({"role": "system", "content": "Search and answer."}, {"role": "user", "content": QUESTION})
FOUND = '<information>\nDoc 1(Title: "Noshak") Noshak is in Afghanistan.\n</information>'


def rollout(correct, query="country of Noshak", answer="Kabul"):
    turns = (
        *OPENING,
        {"role": "assistant", "content": f"I look it up. <search> {query} </search>"},
        {"role": "tool", "content": FOUND},
        {"role": "assistant", "content": f"It is that. <answer> {answer} </answer>"},
    )
    return trajectory("q1", correct, turns, question=QUESTION, prediction=answer, id=f"q1#{int(correct)}")


CHOSEN = Chosen(rollout(False, "tall things", "Paris"), rollout(True))


def teacher(tokenizer, retrieval=None, **settings):
    return Teacher(HiExpConfig(**settings), tokenizer, retrieval, {})


@pytest.mark.parametrize("family", families())
def test_the_teachers_prompt_has_the_reference_inside_the_first_message_of_the_template(family):
    tokenizer = tokenizer_of(family)
    reads = teacher(tokenizer)
    (messages,) = reads.messages([CHOSEN])
    prompt, alone = (tokenizer.decode(reads.ids(each), skip_special_tokens=False) for each in (messages, CHOSEN.opening))
    privileged = "It searched for: country of Noshak"
    assert prompt.count(QUESTION) == 1 and privileged in prompt and "It answered: Kabul" in prompt and "Noshak is in Afghanistan" in prompt
    assert privileged not in alone and "<answer>" not in prompt
    # The privilege stands after the system message's own text and before the user's: no turn of its own.
    assert prompt.index("Search and answer.") < prompt.index(privileged) < prompt.index(QUESTION)
    special = [token for token in tokenizer.all_special_tokens if token in alone]
    assert special and [prompt.count(token) for token in special] == [alone.count(token) for token in special]
    assert prompt.endswith(alone[alone.index(QUESTION) :]), "from the question on teacher and student read the same"


@pytest.mark.parametrize("family", [each for each in families() if "qwen3" not in str(each)])
def test_teacher_and_student_have_the_same_response_with_tool_text_that_is_not_learnt(family):
    tokenizer = tokenizer_of(family)
    reads = teacher(tokenizer)
    written = written_of(CHOSEN.student.messages, CHOSEN.opening, reads)
    assert written is not None
    prompt, response, mask = written
    assert prompt == reads.ids(CHOSEN.opening)
    whole = reads.text(CHOSEN.student.messages, opened=False)
    assert whole.startswith(tokenizer.decode(prompt + response, skip_special_tokens=False).removesuffix("\n"))
    own = tokenizer.decode([token for token, learnt in zip(response, mask, strict=True) if learnt], skip_special_tokens=False)
    rest = tokenizer.decode([token for token, learnt in zip(response, mask, strict=True) if not learnt], skip_special_tokens=False)
    assert "Noshak is in Afghanistan" in rest and "Noshak" not in own and own.count(tokenizer.eos_token) == 2
    kinds = reads.kinds(response, mask)
    for kind, text in (("query", "<search> tall things </search>"), ("answer", "<answer> Paris </answer>")):
        found = tokenizer.decode([token for token, each in zip(response, kinds, strict=True) if each == KINDS.index(kind)])
        assert text.strip("<>") in found.strip("<> \n") or text in found
    assert all(learnt or not kind for learnt, kind in zip(mask, kinds, strict=True))


def test_a_template_that_rewrites_earlier_turns_gives_no_student():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{% if loop.last %}{{ message['content'] }}{% endif %}{% endfor %}"
    assert written_of(CHOSEN.student.messages, CHOSEN.opening, teacher(tokenizer)) is None


def two_versions(tmp_path):
    """A HEK whose second version has another plan for the question."""
    root, encoder = write_hek(tmp_path / "hek"), load_encoder("hash:256")
    first = HEK.load(root)
    plan = Entry("e2-1", "e2", "capital of the country whose highest point is ...", "Ask for the mountain's country at once.")
    second = HEK(first.header, (plan,), encoder.encode_passages([plan.title]))
    second.save(root)
    versions = [Version(str(root / name), HEK.load(root / name).header.content_hash) for name in ("0001", "0002")]
    return str(root / "0001"), versions


@pytest.mark.parametrize("privilege", ["hek", "both"])
def test_experience_is_of_the_version_in_use_not_of_the_start(tmp_path, privilege):
    start, (first, second) = two_versions(tmp_path)
    settings = pinned(
        HiExpConfig(hek=start, encoder=EncoderConfig(path="hash:256", dtype="float32"), distil=SelfDistilConfig(privilege=privilege))
    )
    reads = Teacher(settings, tiny_tokenizer(), LocalRetrieval(settings, searches=False), {})
    texts = {version: reads.messages([CHOSEN], version)[0][0]["content"] for version in (None, first, second)}
    assert "Find the country before its capital." in texts[None] and texts[first] == texts[None]
    assert "Ask for the mountain's country at once." in texts[second] and "Find the country" not in texts[second]
    assert all(("It searched for: country of Noshak" in text) is (privilege == "both") for text in texts.values())
    assert CHOSEN.opening == list(OPENING), "the student's messages are not changed"


def test_a_look_up_that_fails_leaves_the_student_without_a_privilege():
    class Failing:
        async def search(self, query, top_k): ...

        async def experience(self, request):
            raise LookupFailed("retrieval died", "gone")

    reads = teacher(tiny_tokenizer(), Failing(), distil=SelfDistilConfig(privilege="hek"))
    assert reads.messages([CHOSEN]) == [CHOSEN.opening]
