"""Arms side by side: rows that depend on nothing but question, arm and seed; nothing half."""

import asyncio
import fcntl
import json
import os
import random

import pytest

from hiexp_verl.cli import main
from hiexp_verl.errors import HiExpError
from hiexp_verl.llm import Reply
from hiexp_verl.run import evaluate
from hiexp_verl.run.episode import EpisodeSettings
from hiexp_verl.run.evaluate import ARMS, ROWS, TABLE_JSON, TABLE_MD, Plan, check_arms, only_one, read_datasets, write_tables
from hiexp_verl.run.judge import judge_key
from hiexp_verl.search.bm25 import BM25Search
from tests.factories import passage, question
from tests.test_rollout import experience

SEARCH = BM25Search([passage(), passage("p2", "Rome", "Rome is the capital of Italy.")])
QUESTIONS = [question(f"q{i}", f"What is the capital of France, {i}?", ("Paris",)) for i in range(6)]
SETTINGS = EpisodeSettings(temperature=1.0)


class Invariant:
    """A batch-invariant engine: what it says depends on the messages and the seed alone. Slow now and then, so orders differ."""

    model = "invariant"

    def __init__(self, stop_after=None):
        self.calls, self.stop_after = 0, stop_after

    async def chat(self, messages, *, seed=None, stop=None, **_):
        self.calls += 1
        if self.stop_after is not None and self.calls > self.stop_after:
            raise HiExpError("the server has stopped")
        await asyncio.sleep(random.random() / 500)
        if not any(m["role"] == "tool" for m in messages):
            return Reply("<search>capital France</search>", "stop", 5)
        guided = "<experience>" in messages[0]["content"]
        right = random.Random(f"{seed}").random() < (0.9 if guided else 0.4)
        return Reply(f"<answer>{'Paris' if right else 'Rome'}</answer>", "stop", 5)

    async def find_model(self):
        return self.model

    async def close(self):
        return None


class Moody(Invariant):
    """An engine whose words depend on how many it answers at once."""

    def __init__(self):
        super().__init__()
        self.at_once = 0

    async def chat(self, messages, **more):
        self.at_once += 1
        try:
            reply = await super().chat(messages, **more)
            return Reply(f"{reply.text} " if self.at_once > 1 else reply.text, reply.finish_reason, 5)
        finally:
            self.at_once -= 1


def shown_in(control):
    return experience() if control == "full" else None


def play(out, client=None, questions=QUESTIONS, judge=None, seeds=(0,), **more):
    plan = Plan(questions if isinstance(questions, dict) else {"set": questions}, ["base", "hek"], seeds)
    with only_one(out):
        told = evaluate.play(plan, client or Invariant(), SEARCH, SETTINGS, shown_in, out, **{"batch_size": 4, **more})
        return write_tables(plan, told, out, judge)


def rows(out):
    return [json.loads(line) for line in (out / ROWS).read_text().splitlines()]


def test_there_is_one_row_per_question_and_arm_and_a_table(tmp_path):
    table = play(tmp_path / "eval")
    found = rows(tmp_path / "eval")
    assert [(row["arm"], row["id"]) for row in found] == [(arm, q.id) for arm in ("base", "hek") for q in QUESTIONS]
    assert {"prediction", "em", "f1", "cem", "searches", "tokens"} <= set(found[0])
    base, hek = table["arms"]
    assert (base["with_experience"], hek["with_experience"]) == (0.0, 1.0)
    assert base["cem"] == sum(row["cem"] for row in found[:6]) / 6
    assert hek["cem_minus_base"]["mean"] == pytest.approx(hek["cem"] - base["cem"])
    assert json.loads((tmp_path / "eval" / TABLE_JSON).read_text())["arms"][1]["arm"] == "hek"
    lines = (tmp_path / "eval" / TABLE_MD).read_text().splitlines()
    assert len({line.count("|") for line in lines[:4]}) == 1 and "p " in lines[3]


def test_rows_do_not_depend_on_batch_size_order_or_interruption(tmp_path):
    play(tmp_path / "one", batch_size=1)
    play(tmp_path / "many", batch_size=16)
    play(tmp_path / "back", questions=QUESTIONS[::-1])
    with pytest.raises(HiExpError, match="stopped"):
        play(tmp_path / "cut", Invariant(stop_after=15))
    assert not (tmp_path / "cut" / TABLE_MD).exists() and not (tmp_path / "cut" / ROWS).exists(), "no half table"
    play(tmp_path / "cut", resume=True)
    one, many, cut = ((tmp_path / name / ROWS).read_bytes() for name in ("one", "many", "cut"))
    assert one == many == cut, "bit for bit"
    assert sorted(rows(tmp_path / "back"), key=lambda r: (r["arm"], r["id"])) == rows(tmp_path / "one")


def test_an_engine_whose_words_depend_on_the_batch_is_found_out(tmp_path):
    assert play(tmp_path / "good", alone=4)["differ_alone"] == 0
    table = play(tmp_path / "moody", Moody(), batch_size=6, alone=4)
    assert table["replayed"] == 4 and table["differ_alone"] > 0
    assert f"{table['differ_alone']} of 4 episodes differ" in (tmp_path / "moody" / TABLE_MD).read_text()


def test_a_second_evaluation_does_not_write_into_the_first(tmp_path):
    play(tmp_path / "eval")
    with pytest.raises(HiExpError, match="add --resume"):
        play(tmp_path / "eval")
    handle = os.open(tmp_path / "eval", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(HiExpError, match="another evaluation is writing"):
        play(tmp_path / "eval", resume=True)
    os.close(handle)


@pytest.mark.parametrize(
    ("arms", "has_hek", "said"),
    [
        (["base", "hk"], True, "'hk'; known: base, hek, hek-start"),
        ([""], True, "known:"),
        (["hek", "hek"], True, "names one twice"),
        (["base", "random"], False, "arm random shows experience; give a HEK"),
    ],
)
def test_arms_that_mean_nothing_are_refused(arms, has_hek, said):
    with pytest.raises(HiExpError, match=said):
        check_arms(arms, has_hek)


def test_the_base_is_played_first_and_every_arm_has_its_control():
    assert check_arms(["random", "base"], True) == ["base", "random"]
    assert ARMS["hek"] == "full" and ARMS["hek-start"] == "start-only" and ARMS["e2"] == "e2" and "none" not in ARMS


def test_the_command_checks_before_a_model_is_served(tmp_path, capsys):
    (tmp_path / "q.jsonl").write_text(json.dumps({"id": "1", "question": "Who?", "answers": ["me"]}) + "\n")
    (tmp_path / "c.jsonl").write_text(json.dumps({"id": "1", "title": "T", "text": "text"}) + "\n")
    files = ["--questions", str(tmp_path / "q.jsonl"), "--corpus", str(tmp_path / "c.jsonl"), "--model", str(tmp_path / "none")]
    assert main(["eval", *files, "--out", str(tmp_path / "out"), "--arms", "base,hek"]) == 2
    assert "give a HEK as --hek" in capsys.readouterr().err
    assert main(["eval", *files, "--out", str(tmp_path / "out"), "--arms", "base", "--batch-size", "0"]) == 2
    assert "--batch-size must be at least 1" in capsys.readouterr().err
    assert main(["eval", *files, "--out", str(tmp_path / "out"), "--arms", "base", "--seed", "1", "2"]) == 2
    assert "plays the same with every seed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_several_data_sets_and_seeds_are_told_apart_and_taken_together(tmp_path):
    other = [question(f"q{i}", f"What is the capital of Italy, {i}?", ("Rome",)) for i in range(4)]  # the same ids
    table = play(tmp_path / "eval", questions={"one": QUESTIONS, "two": other}, seeds=(1, 2, 3))
    found = rows(tmp_path / "eval")
    assert len(found) == 2 * 3 * (6 + 4)
    lines = {(line["dataset"], line["arm"]): line for line in table["arms"]}
    assert list(lines) == [(d, arm) for d in ("one", "two", "all") for arm in ("base", "hek")]
    assert lines["all", "hek"]["em"] == pytest.approx((18 * lines["one", "hek"]["em"] + 12 * lines["two", "hek"]["em"]) / 30)
    drawn = {seed: [row["prediction"] for row in found if row["seed"] == seed and row["arm"] == "base"] for seed in (1, 2, 3)}
    assert len({tuple(each) for each in drawn.values()}) == 3, "each seed plays its own episodes"
    assert lines["one", "hek"]["em_minus_base"]["mean"] == pytest.approx(lines["one", "hek"]["em"] - lines["one", "base"]["em"])
    assert "| two | hek |" in (tmp_path / "eval" / TABLE_MD).read_text()


def test_two_files_of_one_name_are_refused_and_repeated_questions_told(tmp_path, caplog):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        rows = [{"id": i, "question": "Who  WROTE it?" if i else "Who wrote it?", "answers": ["me", 3]} for i in range(2)]
        (tmp_path / folder / "val.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_datasets([tmp_path / "a" / "val.jsonl"])["val"][1].answers == ("me", "3")
    assert "1 questions are asked more than once (the first: ['0', '1'])" in caplog.text
    with pytest.raises(HiExpError, match="a data set 'val' already"):
        read_datasets([tmp_path / "a" / "val.jsonl", tmp_path / "b" / "val.jsonl"])


def test_a_judge_s_verdicts_are_a_column_of_their_own(tmp_path):
    asked = []

    def judge(episodes):
        asked.extend(episodes)
        return {judge_key(t): t.prediction == "Rome" for t in episodes}

    table = play(tmp_path / "eval", judge=judge)
    assert len(asked) == 12
    assert [row["judge"] for row in rows(tmp_path / "eval")] == [float(row["prediction"] == "Rome") for row in rows(tmp_path / "eval")]
    assert table["arms"][0]["judge"] == pytest.approx(1 - table["arms"][0]["em"])
    assert "judge - base" in (tmp_path / "eval" / TABLE_MD).read_text()
