"""Training data in which a leak would be seen: experience that tells an answer which nothing else tells, and a policy that copies it."""

import asyncio
import json
import re

import pytest

pytestmark = pytest.mark.verl
pytest.importorskip("verl")

import datasets

from hiexp_verl.distil.contrast import distinct
from hiexp_verl.hek import HEK, Header
from hiexp_verl.hek.same_question import near_duplicates
from hiexp_verl.importers.verl_dump import from_verl_dump
from hiexp_verl.models.encoder import load_encoder
from hiexp_verl.plugin.agent_loop import HiExpAgentLoop
from hiexp_verl.plugin.dataset import QuestionDataset
from hiexp_verl.plugin.reward import compute_score
from hiexp_verl.types import TRAJECTORY_KEY, Entry, Source
from tests.support.verl_fixtures import RecitingServer, agent_loop, compose, tiny_tokenizer, write_corpus

CODES = {"Alba": "KX41", "Brenn": "QJ72", "Corvo": "ZW05"}  # of towns that are in no corpus
ASKED = "What is the harbour code of {}?"
SAME_UNDER_ANOTHER_ID = "The code of {} harbour is what?"
IN_OTHER_WORDS = "Tell me, what's the code that the harbour of {} has?"
INSTRUCTED = "Answer the given question. Question: what was the harbour code of {}?\n"  # and no id
TOLD = re.compile(r"[Tt]he harbour code of (\w+) is (\w+)\.")


class CopyingServer(RecitingServer):
    """A policy that searches once, then answers with the code that its context tells for its town."""

    def __init__(self, tokenizer, town):
        super().__init__(tokenizer, [f"<search> harbour code of {town} </search>", ""])
        self.town = town

    async def generate(self, request_id, *, prompt_ids, sampling_params, **more):
        told = dict(TOLD.findall(self.tokenizer.decode(prompt_ids)))
        self.turns[1] = f"<answer> {told.get(self.town, 'unknown')} </answer>"
        return await super().generate(request_id, prompt_ids=prompt_ids, sampling_params=sampling_params, **more)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture
def run_files(tmp_path):
    """A HEK that tells every code at a search and at the start, each town's from two question ids that ask the same."""
    questions, entries = {}, []
    for i, (town, code) in enumerate(CODES.items()):
        first, twin = f"q{i}", f"twin{i}"
        questions |= {first: ASKED.format(town), twin: SAME_UNDER_ANOTHER_ID.format(town)}
        for level, asked in (("e1", first), ("e1", twin), ("e2", first)):
            number = f"{level}-{len(entries):04d}"
            entries.append(Entry(number, level, f"harbour code of {town}", f"The harbour code of {town} is {code}.", questions=(asked,)))
    encoder = load_encoder("hash:256")
    header = Header(encoder.identity, near_duplicates=near_duplicates(questions), thresholds={"tool_min_score": -1.0})
    sources = tuple(Source(f"{q}#0", q, text, "m", "x", False, ()) for q, text in questions.items())
    HEK(header, tuple(entries), encoder.encode_passages([e.title for e in entries]), sources).save(tmp_path / "hek")
    rows = [
        {"id": question, "question": form.format(town), "answer": code}
        for i, (town, code) in enumerate(CODES.items())
        for question, form in ((f"q{i}", ASKED), (f"twin{i}", ASKED), (f"row-{i}", SAME_UNDER_ANOTHER_ID), (f"other-{i}", IN_OTHER_WORDS))
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "val.jsonl").write_text(json.dumps({"id": "v", "question": "What is the harbour code of Dunmar?", "answer": "PL33"}) + "\n")
    bare = [
        {"data_source": "nq", "prompt": [{"role": "user", "content": INSTRUCTED.format(town)}], "reward_model": {"ground_truth": code}}
        for town, code in CODES.items()
    ]
    datasets.Dataset.from_list(bare).to_parquet(tmp_path / "train.parquet")
    write_corpus(tmp_path / "corpus.jsonl")
    return tmp_path


def play(folder, tokenizer, *overrides, file="train.jsonl"):
    """Play every row of a file as verl's worker does; return what the reward says of each."""
    config = compose(
        "+hiexp=grpo",
        "actor_rollout_ref.rollout.name=vllm",
        "actor_rollout_ref.rollout.multi_turn.format=search_tags",
        f"hiexp.search.corpus={folder / 'corpus.jsonl'}",
        f"hiexp.hek={folder / 'hek'}",
        "hiexp.prompt.max_tokens=2000",  # the tokenizer of these tests has a token a byte
        "hiexp.tool.max_tokens=2000",
        "data.max_prompt_length=8000",
        "data.max_response_length=8000",
        f"data.train_files=[{folder / 'train.jsonl'},{folder / 'train.parquet'}]",
        f"data.val_files={folder / 'val.jsonl'}",
        *overrides,
    )
    dataset = QuestionDataset(data_files=str(folder / file), tokenizer=tokenizer, config=config.data)
    return [asyncio.run(play_row(row, config, tokenizer)) for row in (dataset[i] for i in range(len(dataset)))]


async def play_row(row, config, tokenizer):
    town = next((t for t in CODES if t in row["raw_prompt"][-1]["content"]), "Dunmar")
    agent = agent_loop(HiExpAgentLoop, config, CopyingServer(tokenizer, town), tokenizer)
    agent.loop = asyncio.get_running_loop()
    output = await agent.run({"temperature": 1.0}, **row, session_id=0)
    extra_info = {**row["extra_info"], **output.extra_fields}
    return compute_score(row["data_source"], "", row["reward_model"]["ground_truth"], extra_info, "em")


def scores(rewards):
    return [reward["score"] for reward in rewards]


FILES = pytest.mark.parametrize("file", ["train.jsonl", "train.parquet"])


@FILES
@pytest.mark.parametrize("arm", ["full", "random", "shuffled"])
def test_in_training_no_question_is_told_its_own_answer_under_whatever_id(run_files, tokenizer, arm, file):
    rewards = play(run_files, tokenizer, f"hiexp.arm={arm}", file=file)
    assert set(scores(rewards)) == {0.0}
    assert all(reward["e1_fired"] and reward["e2_e3_shown"] for reward in rewards), "of other questions it is shown experience"


@FILES
@pytest.mark.parametrize("without_guard", ["hiexp.arm=own-question", "hiexp.leave_one_out=false"])
def test_without_the_guard_every_answer_leaks(run_files, tokenizer, without_guard, file):
    """What the test above would see."""
    assert set(scores(play(run_files, tokenizer, without_guard, "hiexp.prompt.top_k=9", "hiexp.tool.top_k=9", file=file))) == {1.0}


@pytest.mark.parametrize(("place", "other"), [("prompt", "tool"), ("tool", "prompt")])
def test_either_place_alone_would_leak(run_files, tokenizer, place, other):
    only = ("hiexp.arm=own-question", f"hiexp.{place}.top_k=9", f"hiexp.{other}.max_tokens=0")
    assert set(scores(play(run_files, tokenizer, *only))) == {1.0}


def test_what_verl_dumps_of_validation_feeds_no_hek(run_files, tokenizer):
    trained = [from_verl_dump({TRAJECTORY_KEY: reward[TRAJECTORY_KEY], "step": 1}) for reward in play(run_files, tokenizer)]
    validated = [from_verl_dump({TRAJECTORY_KEY: r[TRAJECTORY_KEY], "step": 1}) for r in play(run_files, tokenizer, file="val.jsonl")]
    kept, dropped = distinct([*validated, *trained])
    assert {t.question_id for t in kept} == {f"{name}{i}" for i in range(len(CODES)) for name in ("q", "twin", "row-", "other-")}
    assert dropped["validation"] == len(validated) == 1
