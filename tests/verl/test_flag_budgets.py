"""The flag and two paths are enough for an episode of long documents: it reaches its answer, and nothing is cut."""

import json

import pytest

pytestmark = pytest.mark.verl
pytest.importorskip("verl")

from hiexp_verl.domains.search import SEARCH
from hiexp_verl.plugin.agent_loop import HiExpAgentLoop
from hiexp_verl.plugin.dataset import row_of
from hiexp_verl.protocol import write_answer, write_call
from hiexp_verl.types import Question
from tests.support.chat_families import model_type, real, tokenizer_of
from tests.support.verl_fixtures import RecitingServer, agent_loop, compose, play, write_hek

QUESTION = Question("val-1", "What is the capital of the country whose highest point is Noshak?", ("Kabul",))
THOUGHT = "<think>\nI need the country first; the passages so far name the mountain and the range, but not who governs it.\n</think>\n\n"
# 100 words of English as in an encyclopedia.
PROSE = (
    "The province lies between two rivers and was settled early by farmers who traded grain with towns on the coast until the road "
    "across the mountains opened in 1931 and brought visitors engineers and a small university to its capital where the parliament "
    "building designed by a local architect still stands beside the market square Every summer a festival celebrates regional music "
    "poetry and cooking while historians debate which of several ancient kingdoms first claimed the northern valleys The current "
    "government has promised better schools railways and hospitals although critics argue that most spending continues to favour "
    "the wealthier districts"
)
WORDS = PROSE.split()


def write_long_corpus(path):
    rows = [{"id": str(i), "title": f"Province of the highest point {i}", "text": " ".join([*WORDS[i:], *WORDS[:i]])} for i in range(15)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("family", real())
@pytest.mark.parametrize("algorithm", ["grpo", "gspo"])
def test_three_searches_of_five_long_documents_fit_into_what_the_flag_sets(tmp_path, family, algorithm):
    assert len(WORDS) == 100
    corpus, hek = write_long_corpus(tmp_path / "corpus.jsonl"), write_hek(tmp_path / "hek", "Name the country.", "Name the point.")
    config = compose(f"+hiexp={algorithm}", f"hiexp.search.corpus={corpus}", f"hiexp.hek={hek}")
    dialect = config.actor_rollout_ref.rollout.multi_turn.format
    assert dialect == "hermes"
    tokenizer = tokenizer_of(family)
    turns = [THOUGHT + write_call(f"highest point of the province {place}", dialect) for place in ("Noshak", "Afghanistan", "Kabul")]
    server = RecitingServer(tokenizer, [*turns, THOUGHT + write_answer("Kabul")])
    agent = agent_loop(HiExpAgentLoop, config, server, tokenizer, model_type(family))
    row = row_of(QUESTION, 0, dialect, SEARCH)
    output = play(agent, raw_prompt=row["prompt"], extra_info=row["extra_info"])
    record = output.extra_fields["hiexp"]
    tools = [m["content"] for m in record["messages"] if m["role"] == "tool"]
    assert record["answer_text"].endswith(write_answer("Kabul")) and record["searches"] == len(tools) == 3
    for text in tools:
        documents = [line for line in text.splitlines() if line.startswith("Doc ")]
        assert len(documents) == 5
        assert all(len(document.split(") ", 1)[1].split()) == 100 for document in documents), "every passage is whole"
        assert "..." not in text
    assert any("<experience>" in text for text in tools) and "<experience>" in record["messages"][0]["content"]
    assert server.prompts[0] == output.prompt_ids and len(output.prompt_ids) <= config.data.max_prompt_length
    assert len(output.response_ids) == sum(map(len, server.written)) + output.response_mask.count(0) < config.data.max_response_length
    limit = config.actor_rollout_ref.rollout.max_model_len or config.data.max_prompt_length + config.data.max_response_length
    assert len(output.prompt_ids) + len(output.response_ids) <= limit
