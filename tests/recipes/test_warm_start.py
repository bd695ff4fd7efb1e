"""The warm start's transcripts are in the agent's own format, and only the model's own tokens are trained."""

import importlib
import sys
from types import ModuleType

import pytest

from hiexp_verl.config import HiExpConfig, SearchConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.io.files import cache_dir
from hiexp_verl.protocol import find_search, first_messages
from hiexp_verl.scoring import extract_answer
from hiexp_verl.search.bm25 import BM25Search
from hiexp_verl.types import Passage, Question
from recipes.demo_data.assets import ASSETS, is_complete

PASSAGES = [
    Passage("1", "Capital of Alpha", "Xville is the capital of Alpha."),
    Passage("2", "Elevation of Alpha", "The highest point of Alpha is Mount Q 100 m."),
    Passage("3", "Climate of Beta", "Rain falls on Beta."),
]
META = {
    "family": "capital > highest point",
    "goal": "highest point",
    "keys": ["capital"],
    "bridge": ["Alpha"],
    "name": "Xville",
    "wording": "plain 0",
}
SETTINGS = HiExpConfig(seed=0, search=SearchConfig(top_k=2, max_words_per_passage=45, max_chars=1200))
QUESTION = Question("aa", "What is the highest point of the country whose capital is Xville?", ("Mount Q",), META)


def load(name: str) -> ModuleType:
    return importlib.import_module(f"recipes.cpu_demo.{name}")


def queries(messages):
    return [find_search(m["content"], "search_tags") for m in messages[2:-1:2]]


class AppendingTokenizer:
    """ChatML over characters: one token per character."""

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        text = "".join(f"<{m['role']}>{m['content']}$\n" for m in messages)
        return text + ("<assistant>" if add_generation_prompt else "")

    def __call__(self, text, add_special_tokens, return_offsets_mapping):
        return {"input_ids": [ord(c) for c in text], "offset_mapping": [(i, i + 1) for i in range(len(text))]}


class RewritingTokenizer(AppendingTokenizer):
    """Drops all but the last message, as templates do that cut earlier thoughts."""

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        return super().apply_chat_template(messages[-1:], tokenize, add_generation_prompt)


def test_a_transcript_searches_every_hop_and_ends_with_the_answer(monkeypatch):
    found = load("transcripts").transcripts_of([QUESTION], BM25Search(PASSAGES), 20, SETTINGS)
    guided = [messages for messages in found if "<experience>" in messages[0]["content"]]
    messages = next(messages for messages in found if messages not in guided)
    assert messages[:2] == first_messages(QUESTION.question, "search_tags")
    assert [m["role"] for m in messages[2:]] == ["assistant", "tool", "assistant", "tool", "assistant"]
    assert queries(messages) == ["Xville capital of which country", "highest point of Alpha"], "in the question's own words"
    assert "Xville is the capital" in messages[3]["content"]
    assert extract_answer(messages[-1]["content"]) == "Mount Q"
    for messages in guided:
        first, second = queries(messages)
        assert f'"{first}", then "{second.replace("Alpha", "the name found")}"' in messages[0]["content"], "in the plan's words"


def test_a_question_whose_hops_do_not_find_the_answer_is_left_out(monkeypatch):
    assert load("transcripts").transcripts_of([QUESTION], BM25Search([PASSAGES[0], PASSAGES[2]]), 5, SETTINGS) == []


def test_only_the_models_own_text_and_its_end_token_are_trained(monkeypatch):
    warm_start = load("warm_start")
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "ab"}, {"role": "tool", "content": "doc"}]
    example = warm_start.tokens_of([*messages, {"role": "assistant", "content": "c"}], AppendingTokenizer())
    assert "".join(chr(label) for label in example.labels_T if label != warm_start.IGNORED) == "ab$c$"


def test_a_template_that_rewrites_earlier_messages_is_refused(monkeypatch):
    warm_start = load("warm_start")
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "ab"}, {"role": "user", "content": "r"}]
    with pytest.raises(HiExpError, match="rewrites earlier messages"):
        warm_start.tokens_of(messages, RewritingTokenizer())


@pytest.mark.parametrize(("option", "message"), [("--out", "exists already"), ("--model", "has no config.json; fetch one with")])
def test_a_wrong_path_is_one_line_and_exit_code_1(monkeypatch, tmp_path, capsys, option, message):
    warm_start = load("warm_start")
    paths = {"--model": tmp_path, "--questions": tmp_path / "q", "--corpus": tmp_path / "c", "--out": tmp_path / "new"}
    (tmp_path / "config.json").write_text("{}")
    paths[option] = tmp_path if option == "--out" else tmp_path / "nowhere"
    monkeypatch.setattr(sys, "argv", ["warm_start.py", *(str(x) for pair in paths.items() for x in pair)])
    assert warm_start.main() == 1
    assert message in capsys.readouterr().err


@pytest.mark.assets
def test_the_real_template_leaves_exactly_the_assistant_turns(monkeypatch):
    model_dir = cache_dir() / "smollm2-135m"
    if not is_complete(model_dir, ASSETS["smollm2-135m"]):
        pytest.skip("smollm2-135m is not in the cache")
    tokenizer = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(model_dir)
    warm_start, transcripts = load("warm_start"), load("transcripts")
    (messages,) = transcripts.transcripts_of([QUESTION], BM25Search(PASSAGES), 1, SETTINGS)
    example = warm_start.tokens_of(messages, tokenizer)
    own = tokenizer.decode([label for label in example.labels_T if label != warm_start.IGNORED])
    assert own == "".join(m["content"] + "<|im_end|>" for m in messages if m["role"] == "assistant")
