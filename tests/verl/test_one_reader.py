"""A question file gives the same id, question and answers to every part that reads it."""

import json

import datasets
import pytest

pytestmark = pytest.mark.verl
pytest.importorskip("verl")

from verl.utils.dataset.rl_dataset import RLHFDataset

from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.retrieve import Retriever
from hiexp_verl.hek.schema import Header
from hiexp_verl.hek.store import HEK
from hiexp_verl.io.datasets import read_questions
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.io.questions import question_id_of
from hiexp_verl.models.encoder import load_encoder
from hiexp_verl.plugin.agent_loop import HiExpAgentLoop
from hiexp_verl.plugin.dataset import QuestionDataset
from hiexp_verl.plugin.preflight_data import check_questions
from hiexp_verl.plugin.reward import compute_score
from hiexp_verl.types import TRAJECTORY_KEY, Entry
from tests.support.verl_fixtures import RecitingServer, agent_loop, compose, play, tiny_tokenizer, write_corpus

ASKED = "who wrote emma"
PROMPT = [{"role": "user", "content": f"Answer the given question. Question: {ASKED}?\n"}]
VERL = {"data_source": "nq", "prompt": PROMPT, "reward_model": {"style": "rule", "ground_truth": {"target": ["Jane Austen"]}}}
SEARCH_R1 = {"id": "train_0", "question": ASKED, "golden_answers": ["Jane Austen", "Austen"], **VERL, "extra_info": {"index": 0}}
PLAIN = {"question": ASKED, "answer": "Jane Austen", "answer_aliases": ["Austen"]}
BOTH = ("Jane Austen", "Austen")
ROWS = [
    ("jsonl", SEARCH_R1, ("nq-train_0", ASKED, BOTH)),
    ("parquet", SEARCH_R1, ("nq-train_0", ASKED, BOTH)),
    ("jsonl", {**PLAIN, "_id": 7}, ("7", ASKED, BOTH)),
    ("parquet", {**VERL, **PLAIN, "_id": 7}, ("nq-7", ASKED, BOTH)),
    ("jsonl", PLAIN, (question_id_of(ASKED), ASKED, BOTH)),
    ("parquet", {**VERL, **PLAIN}, (question_id_of(ASKED), ASKED, BOTH)),
    ("parquet", VERL, (question_id_of(f"{ASKED}?"), f"{ASKED}?", ("Jane Austen",))),
    ("parquet", {**VERL, "extra_info": {"question_id": "n1", "index": 3}}, ("n1", f"{ASKED}?", ("Jane Austen",))),
]


class Mine(QuestionDataset):
    """A user's own subclass."""


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def write(folder, kind, row):
    path = folder / f"train.{kind}"
    write_jsonl(path, [row]) if kind == "jsonl" else datasets.Dataset.from_list([row]).to_parquet(path)
    return path


def config_of(folder, path):
    corpus = write_corpus(folder / "corpus.jsonl")
    flags = ("actor_rollout_ref.rollout.name=vllm", "hiexp.arm=none", f"hiexp.search.corpus={corpus}", f"data.train_files={path}")
    return compose("+hiexp=grpo", *flags, "data.max_prompt_length=8000", "data.max_response_length=8000")


def scored(row, config, tokenizer, answer):
    """Return the reward and the trajectory of an episode on a row, as verl calls loop and reward."""
    output = play(agent_loop(HiExpAgentLoop, config, RecitingServer(tokenizer, [f"<answer> {answer} </answer>"]), tokenizer), **row)
    reward = compute_score("", "", row["reward_model"]["ground_truth"], {**row["extra_info"], **output.extra_fields}, "em")
    return reward["score"], json.loads(reward[TRAJECTORY_KEY])


@pytest.mark.parametrize(("kind", "row", "expected"), ROWS)
def test_every_part_reads_the_same_question(tmp_path, tokenizer, kind, row, expected):
    path = write(tmp_path, kind, row)
    config = config_of(tmp_path, path)
    (asked,) = read_questions(path)  # eval, rollout and audit
    assert (asked.id, asked.question, asked.answers) == expected
    assert list(check_questions(config, "train_files")[str(path)].values()) == [asked.question]
    for dataset in (QuestionDataset, Mine):
        (given,) = dataset(data_files=str(path), tokenizer=tokenizer, config=config.data)
        extra = given["extra_info"]
        assert (extra["question_id"], extra["question"], tuple(extra["answers"])) == expected
        for answer in asked.answers:
            score, trajectory = scored(given, config, tokenizer, answer)
            assert (trajectory["question_id"], trajectory["question"], tuple(trajectory["answers"]), score) == (*expected, 1.0)


@pytest.mark.parametrize(("kind", "row", "expected"), [each for each in ROWS if each[0] == "parquet"])
def test_rows_of_verls_own_dataset_have_the_same_question(tmp_path, tokenizer, kind, row, expected):
    path = write(tmp_path, kind, row)
    config = config_of(tmp_path, path)
    (given,) = RLHFDataset(data_files=str(path), tokenizer=tokenizer, config=config.data)
    score, trajectory = scored(given, config, tokenizer, "Jane Austen")
    assert (trajectory["question_id"], trajectory["question"], score) == (*expected[:2], 1.0)
    assert trajectory["answers"] == ["Jane Austen"], "verl passes its own ground truth alone"


def test_an_entry_from_rollouts_of_a_file_is_hidden_from_its_question_in_training(tmp_path, tokenizer):
    path = write(tmp_path, "parquet", SEARCH_R1)
    (asked,) = read_questions(path)
    encoder = load_encoder("hash:256")
    vectors = encoder.encode_passages(["t"])
    hek = HEK(Header(encoder.identity), (Entry("e1-0", "e1", "t", "d", questions=(asked.id,)),), vectors, ())
    (given,) = QuestionDataset(data_files=str(path), tokenizer=tokenizer, config=config_of(tmp_path, path).data)
    asks = given["extra_info"]["question_id"]
    assert Retriever(hek, encoder).retrieve(vectors, ["e1"], 1, exclude_questions=[asks]) == [[]]


@pytest.mark.parametrize("columns", [{"question": "Q1?"}, {"answer": "A"}])
def test_columns_that_contradict_each_other_are_refused_before_training(tmp_path, columns):
    path = write(tmp_path, "parquet", {**VERL, **columns})
    with pytest.raises(HiExpError, match=r"row 0: .*(does not hold the row's question|none in common).*; correct the row"):
        check_questions(config_of(tmp_path, path), "train_files")


def test_rows_marked_as_having_no_answer_are_left_out_by_every_part(tmp_path, tokenizer):
    rows = [{**VERL, "id": "a", "answerable": "true"}, {**VERL, "id": "b", "answerable": "false"}]
    path = tmp_path / "train.parquet"
    datasets.Dataset.from_list(rows).to_parquet(path)
    config = config_of(tmp_path, path)
    dataset = QuestionDataset(data_files=str(path), tokenizer=tokenizer, config=config.data)
    assert [row["extra_info"]["question_id"] for row in dataset] == [q.id for q in read_questions(path)] == ["a"]
    assert len(check_questions(config, "train_files")[str(path)]) == 1
    datasets.Dataset.from_list(rows[1:]).to_parquet(path)
    with pytest.raises(HiExpError, match="has no question with an answer"):
        check_questions(config, "train_files")


def test_a_table_is_read_and_a_file_that_no_dataset_reads_is_refused_before_training(tmp_path, tokenizer):
    path = tmp_path / "train.csv"
    path.write_text(f"id,question,answer\n7,{ASKED},Jane Austen\n")
    (given,) = QuestionDataset(data_files=str(path), tokenizer=tokenizer, config=config_of(tmp_path, path).data)
    assert (given["extra_info"]["question_id"], given["extra_info"]["question"]) == ("7", ASKED)
    other = path.rename(tmp_path / "train.txt")
    with pytest.raises(HiExpError, match=r"is read by nothing; name it \.jsonl"):
        check_questions(config_of(tmp_path, other), "train_files")
    both = f"[{write(tmp_path, 'parquet', VERL)},{write(tmp_path, 'jsonl', PLAIN)}]"
    with pytest.raises(HiExpError, match="give files of one kind"):
        check_questions(config_of(tmp_path, both), "train_files")
