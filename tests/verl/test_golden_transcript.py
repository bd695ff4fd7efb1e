"""One golden transcript for both: training and evaluation play the same episode, message by message."""

import asyncio
import json
import os

import pytest

pytestmark = [pytest.mark.verl, pytest.mark.compat]
pytest.importorskip("verl")

from hiexp_verl.config import Budgets, PromptConfig, ToolConfig
from hiexp_verl.guide.episode import Guidance
from hiexp_verl.guide.guide import Guide
from hiexp_verl.hek.retrieve import Retriever
from hiexp_verl.hek.store import HEK
from hiexp_verl.io.datasets import read_corpus
from hiexp_verl.models.encoder import load_encoder
from hiexp_verl.plugin.agent_loop import HiExpAgentLoop, settings_of
from hiexp_verl.protocol import first_messages
from hiexp_verl.rollout.episode import EpisodeSettings, Players, episode
from hiexp_verl.search.bm25 import BM25Search
from hiexp_verl.types import Question
from tests.support.agent_episodes import QUESTION, TURNS, Reciting, config_of
from tests.support.paths import GOLDEN
from tests.support.verl_fixtures import RecitingServer, agent_loop, play, tiny_tokenizer, write_corpus, write_hek

TRANSCRIPTS = GOLDEN / "transcripts"


@pytest.mark.parametrize("position", ["after", "before"])
@pytest.mark.parametrize("arm", ["full", "none", "prompt", "tool", "shuffled"])
@pytest.mark.parametrize("dialect", ["search_tags", "hermes"])
def test_an_episode_in_training_and_one_in_evaluation_have_the_same_messages(tmp_path, dialect, arm, position):
    paths = {"corpus": write_corpus(tmp_path / "corpus.jsonl"), "hek": write_hek(tmp_path / "hek", "Look for the country first.")}
    trained, shown_in_training = in_training(paths, dialect, arm, position)
    evaluated, shown_in_evaluation = in_evaluation(paths, dialect, arm, position)
    assert trained == evaluated
    assert shown_in_training == shown_in_evaluation
    if (arm, position) == ("full", "before"):
        file = TRANSCRIPTS / f"{dialect}.json"
        if os.environ.get("HIEXP_WRITE_GOLDEN"):
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(trained, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        assert trained == json.loads(file.read_text(encoding="utf-8"))
        assert sum("Search for the mountain first" in m["content"] for m in trained) == 1, "the case is shown, once"


def in_training(paths, dialect, arm, position):
    tokenizer = tiny_tokenizer()
    config = config_of(paths, dialect, f"hiexp.arm={arm}", f"hiexp.tool.position={position}")
    loop = agent_loop(HiExpAgentLoop, config, RecitingServer(tokenizer, TURNS[dialect]), tokenizer)
    row = {"raw_prompt": first_messages(QUESTION, dialect), "extra_info": {"question_id": "q", "question": QUESTION}}
    record = play(loop, **row, session_id=0, global_steps=1).extra_fields["hiexp"]
    return record["messages"], record["shown"]


def in_evaluation(paths, dialect, arm, position):
    tokenizer = tiny_tokenizer()
    trained_with = settings_of(config_of(paths, dialect))
    search = trained_with.search
    settings = EpisodeSettings(format=dialect)

    def count(text):
        return len(tokenizer.encode(text, add_special_tokens=False))

    guide = None
    if arm != "none":
        retriever = Retriever(HEK.load(paths["hek"]), load_encoder("hash:256"))
        guide = Guide(retriever, Guidance(Budgets(PromptConfig(top_k=5), ToolConfig(position=position)), arm, count_tokens=count))
    asked = Question("q", QUESTION, ("Kabul",))
    played = asyncio.run(
        episode(asked, Players(Reciting(TURNS[dialect]), BM25Search(read_corpus(paths["corpus"])), guide, search), settings)
    )
    return list(played.messages), played.extra["shown"]
