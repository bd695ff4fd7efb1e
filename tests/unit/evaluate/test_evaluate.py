"""Arms side by side: rows that depend on nothing but question, arm and seed; nothing half."""

import asyncio
import fcntl
import json
import os
import random
import subprocess
import sys
from dataclasses import replace

import pytest

from hiexp_verl.cli import main
from hiexp_verl.errors import HiExpError
from hiexp_verl.evaluate import evaluate
from hiexp_verl.evaluate.evaluate import write_tables
from hiexp_verl.evaluate.judge import judge_key
from hiexp_verl.evaluate.plan import ROWS, TABLE_JSON, TABLE_MD, EvaluationPlan, check_arms, part_folder, read_datasets
from hiexp_verl.evaluate.tables import as_markdown, pairs_of, row_of, table_of
from hiexp_verl.io.files import only_one
from hiexp_verl.io.manifest import MANIFEST, read_manifest
from hiexp_verl.models.chat import PromptTooLong, Reply
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.rollout.episode import EpisodeSettings, Players, episode
from hiexp_verl.rollout.rollout import Job
from hiexp_verl.search import SearchFailed
from hiexp_verl.search.bm25 import BM25Search
from tests.support.factories import passage, question
from tests.support.paths import ROOT
from tests.support.scripted_policy import guide

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
    return guide() if control == "full" else None


def play(
    out, client=None, questions=QUESTIONS, judge=None, seeds=(0,), arms=("none", "full"), search=SEARCH, shown=shown_in, alone=0, **more
):
    plan = EvaluationPlan(questions if isinstance(questions, dict) else {"set": questions}, arms, seeds)
    with only_one(out):
        plan.check_output(out, more.get("resume", False))
        client = client or Invariant()
        job = Job(out, SETTINGS, **{"batch_size": 4, **more})

        def players_of(arm):
            return Players(client, search, shown(arm))

        summary = evaluate.play(plan, players_of, job)
        summary |= evaluate.replay(plan, players_of, job, alone) if alone else {}
        return write_tables(plan, summary, out, judge)


def rows(out):
    return [json.loads(line) for line in (out / ROWS).read_text().splitlines()]


def test_there_is_one_row_per_question_and_arm_and_a_table(tmp_path):
    table = play(tmp_path / "eval")
    found = rows(tmp_path / "eval")
    assert [(row["arm"], row["id"]) for row in found] == [(arm, q.id) for arm in ("none", "full") for q in QUESTIONS]
    assert {"prediction", "concise", "em", "f1", "cem", "searches", "tokens"} <= set(found[0])
    base, hek = table["arms"]
    assert (base["with_experience"], hek["with_experience"]) == (0.0, 1.0)
    assert base["concise"] == sum(row["concise"] for row in found[:6]) / 6
    assert hek["concise_minus_none"]["mean"] == pytest.approx(hek["concise"] - base["concise"])
    assert json.loads((tmp_path / "eval" / TABLE_JSON).read_text())["arms"][1]["arm"] == "full"
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
    assert sorted(rows(tmp_path / "back"), key=lambda r: (r["arm"] != "none", r["id"])) == rows(tmp_path / "one")


def test_an_engine_whose_words_depend_on_the_batch_is_found_out(tmp_path):
    assert play(tmp_path / "good", alone=4)["differ_alone"] == 0
    table = play(tmp_path / "moody", Moody(), batch_size=6, alone=4)
    assert table["replayed"] == 4 and table["differ_alone"] > table["scores_differ_alone"] == 0, "a space scores the same"
    sentence = f"{table['differ_alone']} of 4 episodes differ, 0 of them in their scores."
    assert sentence in (tmp_path / "moody" / TABLE_MD).read_text()


def test_every_arm_has_its_share_of_the_replay(tmp_path):
    played = []

    class Counting(Invariant):
        async def chat(self, messages, **more):
            played.append("<experience>" in str(messages))
            return await super().chat(messages, **more)

    play(tmp_path / "eval", Counting())
    before = len(played)
    assert play(tmp_path / "eval", Counting(), resume=True, alone=5)["replayed"] == 5
    again = played[before:]
    assert {True, False} == set(again), "the base and the HEK"
    assert play(tmp_path / "eval", Counting(), resume=True, alone=99)["replayed"] == 12, "there are no more"


def test_a_smaller_table_leaves_episodes_where_they_are(tmp_path):
    play(tmp_path / "eval")
    table = play(tmp_path / "eval", questions=QUESTIONS[:4], arms=("none",), resume=True)
    assert [line["episodes"] for line in table["arms"]] == [4]
    play(tmp_path / "eval", resume=True)
    assert len(rows(tmp_path / "eval")) == 12, "all are still there"


def test_a_second_evaluation_does_not_write_into_the_first(tmp_path):
    play(tmp_path / "eval")
    with pytest.raises(HiExpError, match="add --resume"):
        play(tmp_path / "eval")
    before = (tmp_path / "eval" / TABLE_JSON).read_bytes()
    for other in ({"arms": ("prompt",)}, {"seeds": (1,)}, {"questions": {"another": QUESTIONS}}):
        with pytest.raises(HiExpError, match="holds an evaluation"):
            play(tmp_path / "eval", **other)
    assert (tmp_path / "eval" / TABLE_JSON).read_bytes() == before
    handle = os.open(tmp_path / "eval", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(HiExpError, match=r"another run .pid \d+. is writing"):
        play(tmp_path / "eval", resume=True)
    os.close(handle)


@pytest.mark.parametrize(
    ("arms", "has_hek", "message"),
    [
        (["none", "hk"], True, "unknown arm 'hk'; use one of full, none, prompt"),
        ([""], True, "unknown arm"),
        (["full", "full"], True, "names one twice"),
        (["none", "random"], False, "arm random shows experience; give a HEK"),
    ],
)
def test_arms_that_mean_nothing_are_refused(arms, has_hek, message):
    with pytest.raises(HiExpError, match=message):
        check_arms(arms, has_hek)


def test_the_base_is_played_first_and_every_arm_has_its_control():
    assert check_arms(["random", "none"], True) == ["none", "random"]


def test_the_command_checks_before_a_model_is_served(tmp_path, capsys):
    (tmp_path / "q.jsonl").write_text(json.dumps({"id": "1", "question": "Who?", "answers": ["me"]}) + "\n")
    (tmp_path / "c.jsonl").write_text(json.dumps({"id": "1", "title": "T", "text": "text"}) + "\n")
    files = ["--questions", str(tmp_path / "q.jsonl"), "--corpus", str(tmp_path / "c.jsonl"), "--model", str(tmp_path / "none")]
    assert main(["eval", *files, "--out", str(tmp_path / "out"), "--arms", "none,full"]) == 2
    assert "give a HEK as --hek" in capsys.readouterr().err
    assert main(["eval", *files, "--out", str(tmp_path / "out"), "--arms", "none", "--batch-size", "0"]) == 2
    assert "--batch-size must be at least 1" in capsys.readouterr().err
    assert main(["eval", *files, "--out", str(tmp_path / "out"), "--arms", "none", "--seed", "1", "2"]) == 2
    assert "plays the same with every seed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_several_data_sets_and_seeds_are_kept_apart_and_taken_together(tmp_path):
    other = [question(f"q{i}", f"What is the capital of Italy, {i}?", ("Rome",)) for i in range(4)]  # the same ids
    table = play(tmp_path / "eval", questions={"one": QUESTIONS, "two": other}, seeds=(1, 2, 3))
    found = rows(tmp_path / "eval")
    assert len(found) == 2 * 3 * (6 + 4)
    lines = {(line["dataset"], line["arm"]): line for line in table["arms"]}
    assert list(lines) == [(d, arm) for d in ("one", "two", "all") for arm in ("none", "full")]
    assert lines["all", "full"]["em"] == pytest.approx((18 * lines["one", "full"]["em"] + 12 * lines["two", "full"]["em"]) / 30)
    drawn = {seed: [row["prediction"] for row in found if row["seed"] == seed and row["arm"] == "none"] for seed in (1, 2, 3)}
    assert len({tuple(each) for each in drawn.values()}) == 3, "each seed plays its own episodes"
    assert lines["one", "full"]["em_minus_none"]["mean"] == pytest.approx(lines["one", "full"]["em"] - lines["one", "none"]["em"])
    assert "| two | full |" in (tmp_path / "eval" / TABLE_MD).read_text()


def test_two_files_of_one_name_are_refused_and_repeated_questions_logged(tmp_path, caplog):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        rows = [{"id": i, "question": "Who  WROTE it?" if i else "Who wrote it?", "answers": ["me", 3]} for i in range(2)]
        (tmp_path / folder / "val.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_datasets([tmp_path / "a" / "val.jsonl"])["val"][1].answers == ("me", "3")
    assert "1 questions are asked more than once, and count as often (the first: ['0', '1'])" in caplog.text
    with pytest.raises(HiExpError, match="the name 'val' is taken"):
        read_datasets([tmp_path / "a" / "val.jsonl", tmp_path / "b" / "val.jsonl"])


def test_a_judge_s_verdicts_are_a_column_of_their_own(tmp_path):
    asked = []

    def judge(episodes):
        asked.extend(episodes)
        return {judge_key(t): t.prediction == "Rome" if t.question_id != "q0" else None for t in episodes}

    table = play(tmp_path / "eval", judge=judge)
    assert len(asked) == 12
    found = rows(tmp_path / "eval")
    assert [row["judge"] for row in found] == [float(row["prediction"] == "Rome" and row["id"] != "q0") for row in found]
    unreadable = len({row["prediction"] for row in found if row["id"] == "q0"})
    assert table["unreadable_verdicts"] == unreadable > 0 and table["verdicts"] == len({(row["id"], row["prediction"]) for row in found})
    assert {pair["measure"] for pair in table["pairs"]} == {"concise", "em", "f1", "cem", "judge"}
    sentence = f"Judge: one; {unreadable} of {table['verdicts']} verdicts were neither yes nor no, and count as wrong."
    assert sentence in as_markdown({**table, "judge": "one"})
    assert "judge - none" in (tmp_path / "eval" / TABLE_MD).read_text()


def test_a_row_holds_what_the_episode_was():
    searched = play_one([Reply("<search>capital France</search>", "stop", 7), Reply("<answer>Paris</answer>", "stop", 5)])
    row = row_of("set", 3, "full", searched)
    assert (row["tokens"], row["searches"], row["failed_searches"], row["lookup_failures"]) == (12, 1, 0, 0)
    assert (row["em"], row["concise"], row["format"], row["prediction"]) == (1.0, 1.0, 1.0, "Paris")
    assert row["experience_tokens"] == sum(each["tokens"] for each in searched.extra["shown"]) > 0 and len(row["shown"]) == 2


def play_one(replies):
    class Reciting(Invariant):
        async def chat(self, messages, **_):
            return replies[sum(m["role"] == "assistant" for m in messages)]

    return asyncio.run(episode(QUESTIONS[0], Players(Reciting(), SEARCH, guide()), SETTINGS))


def row(arm, id, em, **more):
    values = {"searches": 1, "failed_searches": 0, "lookup_failures": 0, "tokens": 10, "experience_tokens": 0, "format": 1.0, "shown": []}
    return {"dataset": "set", "seed": 0, "arm": arm, "id": id, "em": em, "f1": em, "cem": em, "concise": em, **values, **more}


def test_what_episodes_cost_is_a_mean():
    (line,) = table_of([row("none", "a", 1.0, searches=3, tokens=30, format=0.0), row("none", "b", 0.0, searches=1, tokens=20)])
    assert (line["searches"], line["tokens"], line["format"], line["experience_tokens"]) == (2.0, 25.0, 0.5, 0.0)


def test_every_arm_is_compared_with_every_other(tmp_path):
    # q0 to q3 are right in: base 1, hek 3, random 2 of 4; full - random: q2 alone, so 2 of 2 signs are as far from 0.
    right = {"none": [1, 0, 0, 0], "full": [1, 1, 1, 0], "random": [1, 1, 0, 0]}
    played = [row(arm, str(i), float(value)) for arm, values in right.items() for i, value in enumerate(values)]
    lines = table_of(played)
    pairs = {(pair["arm"], pair["against"]): pair for pair in pairs_of(played) if pair["measure"] == "concise"}
    assert list(pairs) == [("full", "none"), ("random", "none"), ("random", "full")]
    assert (pairs["random", "full"]["mean"], pairs["random", "full"]["p"], pairs["random", "full"]["high"]) == (-0.25, 1.0, 0.0)
    assert pairs["full", "none"]["mean"] == 0.5 and pairs["full", "none"].items() >= lines[1]["concise_minus_none"].items()


def test_arms_against_each_other_are_a_table_of_their_own(tmp_path):
    table = play(tmp_path / "three", arms=["none", "full", "random"])
    assert {(p["dataset"], p["arm"], p["against"]) for p in table["pairs"]} == {
        ("set", "full", "none"),
        ("set", "random", "none"),
        ("set", "random", "full"),
    }
    text = (tmp_path / "three" / TABLE_MD).read_text()
    assert "| random - full |" in text and "- none |" not in text and "not corrected for the number of comparisons" in text
    play(tmp_path / "two")
    text = (tmp_path / "two" / TABLE_MD).read_text()
    assert "arm against arm" not in text and "corrected" not in text
    play(tmp_path / "without", arms=["full", "random"])
    assert "| random - full |" in (tmp_path / "without" / TABLE_MD).read_text()


def test_failed_searches_and_look_ups_stand_under_the_table(tmp_path):
    class Failing(BM25Search):
        def search(self, queries, top_k):
            raise SearchFailed("time-out")

    class Blind(HashEncoder):
        def encode_queries(self, texts):
            raise RuntimeError("out of memory")

    def blind(control):
        return guide(queries=Blind()) if control == "full" else None

    passages = [passage(), passage("p2", "Rome", "Rome is the capital of Italy.")]
    play(tmp_path / "eval", search=Failing(passages), shown=blind)
    text = (tmp_path / "eval" / TABLE_MD).read_text()
    assert "6 of 6 searches failed in arm none of set." in text and "6 look-ups of experience failed in arm full" in text
    assert "delete their folders" in text
    play(tmp_path / "blind", shown=blind)
    assert "12 look-ups of experience failed in arm full" in (tmp_path / "blind" / TABLE_MD).read_text(), "at the start and at the search"
    play(tmp_path / "good")
    assert "failed" not in (tmp_path / "good" / TABLE_MD).read_text()


def test_episodes_that_outgrow_the_context_are_counted(tmp_path):
    class Small(Invariant):
        async def chat(self, messages, **more):
            if "<experience>" in str(messages) and len(messages) > 3:
                raise PromptTooLong("700 tokens and 512 are room for")
            return await super().chat(messages, **more)

    table = play(tmp_path / "eval", Small())
    base, hek = table["arms"]
    assert (base["stops"].get("prompt_too_long"), hek["stops"]["prompt_too_long"]) == (None, 1.0)
    assert "6 of 6 episodes outgrew the model's context in arm full" in (tmp_path / "eval" / TABLE_MD).read_text()


def test_the_seconds_are_those_of_all_sessions(tmp_path):
    first = play(tmp_path / "eval", Slow())
    again = play(tmp_path / "eval", resume=True)
    assert again["seconds"] >= first["seconds"] >= 0.6
    with pytest.raises(HiExpError, match="stopped"):
        play(tmp_path / "cut", Slow(stop_after=2), batch_size=1)
    assert play(tmp_path / "cut", resume=True)["seconds"] >= 0.4, "the session that was cut off counts"


def test_the_batch_sizes_of_all_sessions_are_in_the_table(tmp_path):
    out = tmp_path / "eval"
    with pytest.raises(HiExpError, match="stopped"):
        play(out, Invariant(stop_after=6), batch_size=2)
    assert play(out, resume=True, batch_size=3)["batch_size"] == "2 or 3"
    assert "2 or 3 episodes at a time" in (out / TABLE_MD).read_text()
    assert play(out, resume=True, batch_size=16)["batch_size"] == "2 or 3", "nothing was left to play"
    with pytest.raises(HiExpError, match="was made with policy"):
        play(out, resume=True, batch_size=9, policy="another")
    assert play(out, resume=True)["batch_size"] == "2 or 3", "a session that was refused played nothing"


def test_what_a_table_took_is_what_its_own_episodes_took(tmp_path):
    out = tmp_path / "eval"
    play(out, Slow(), batch_size=2, arms=["none"])
    other = play(out, resume=True, batch_size=3, questions={"other": QUESTIONS}, arms=["none"])
    assert (other["batch_size"], other["seconds"] < 0.6) == ("3", True)
    both = play(out, resume=True, questions={"other": QUESTIONS, "set": QUESTIONS}, arms=["none"])
    assert both["batch_size"] == "2 or 3" and both["seconds"] >= 0.6
    fewer = play(out, resume=True, batch_size=16, questions={"other": QUESTIONS[:3]}, arms=["none"])
    assert fewer["batch_size"] == "3", "nothing was played at 16"
    plenty = [*QUESTIONS, replace(QUESTIONS[0], id="new")]
    assert play(out, resume=True, batch_size=16, questions={"other": plenty[-3:]}, arms=["none"])["batch_size"] == "3 or 16"


def test_a_damaged_manifest_of_a_part_is_named(tmp_path):
    play(tmp_path / "eval")
    (tmp_path / "eval" / "set" / "seed-0" / "full" / MANIFEST).write_text("{")
    with pytest.raises(HiExpError, match=r"seed-0/full/run\.json is damaged"):
        play(tmp_path / "eval", resume=True)


def test_an_evaluation_leaves_a_manifest_that_names_its_parts(tmp_path):
    play(tmp_path / "eval", batch_size=2)
    manifest = read_manifest(tmp_path / "eval")
    plan = {"datasets": ["set"], "seeds": [0], "arms": ["none", "full"]}
    assert manifest.kind == "evaluation" and manifest.spec.items() >= plan.items()
    assert (manifest.spec["model"], manifest.spec["temperature"], manifest.spec["corpus"]) == ("invariant", 1.0, "")
    assert manifest.spec["hek"] == guide().content_hash and not {"arm", "seed"} & manifest.spec.keys()
    assert manifest.finished and manifest.results == {"rows": ["rows.jsonl"], "table": ["table.json", "table.md"]}
    part = read_manifest(part_folder(tmp_path / "eval", "set", 0, "full"))
    assert (part.kind, part.batch_sizes, part.results["episodes"]) == ("rollout", [2], ["trajectories.jsonl"])
    with pytest.raises(HiExpError, match="stopped"):
        play(tmp_path / "cut", Invariant(stop_after=2))
    cut = read_manifest(tmp_path / "cut")
    assert cut.finished is None and cut.error == "HiExpError: the server has stopped"
    assert read_manifest(part_folder(tmp_path / "cut", "set", 0, "none")).error.startswith("HiExpError: ")


def test_a_resumed_evaluation_continues_its_manifest(tmp_path):
    play(tmp_path / "eval", arms=["none"], batch_size=2)
    first = read_manifest(tmp_path / "eval")
    first.begun, first.seconds = first.begun.replace(year=2020), 1000.0
    first.write(tmp_path / "eval")
    with pytest.raises(HiExpError, match="was made with model = 'invariant'"):
        other = Invariant()
        other.model = "other"
        play(tmp_path / "eval", other, resume=True)
    refused = read_manifest(tmp_path / "eval")
    assert (refused.spec, refused.finished) == (first.spec, None) and "was made with model" in refused.error
    play(tmp_path / "eval", resume=True, batch_size=3)
    again = read_manifest(tmp_path / "eval")
    assert (again.begun, again.error, again.batch_sizes) == (first.begun, "", [2, 4, 3]) and again.finished
    assert 1000.0 <= again.seconds < 1100.0 and again.spec["arms"] == ["none", "full"]


@pytest.mark.parametrize(
    "damage", [('"em": ', '"me": '), ('"em": ', '"em": null, "x": '), ('"em": ', '"em": "x", "x": '), ('"seconds": ', '"s": ')]
)
def test_an_episode_that_no_evaluation_wrote_is_named(tmp_path, damage):
    play(tmp_path / "eval")
    path = tmp_path / "eval" / "set" / "seed-0" / "full" / "trajectories.jsonl"
    path.write_text(path.read_text().replace(*damage, 1))
    with pytest.raises(HiExpError, match=r"seed-0/full/trajectories\.jsonl: .* q0.*; remove"):
        play(tmp_path / "eval", resume=True)


class Slow(Invariant):
    async def chat(self, messages, **more):
        await asyncio.sleep(0.2)
        return await super().chat(messages, **more)


def test_one_question_has_no_interval(tmp_path):
    table = play(tmp_path / "eval", questions={"one": QUESTIONS[:1], "more": QUESTIONS})
    assert "em_interval" not in table["arms"][0] and "em_minus_none" not in table["arms"][1] and "em_minus_none" in table["arms"][3]
    assert {pair["dataset"] for pair in table["pairs"]} == {"more", "all"}
    assert "| one | full | 1 |" in (tmp_path / "eval" / TABLE_MD).read_text()


def test_tokens_that_no_server_tells_are_not_zero(tmp_path):
    class Silent(Invariant):
        async def chat(self, messages, **more):
            return replace(await super().chat(messages, **more), completion_tokens=0)

    play(tmp_path / "eval", Silent())
    cells = (tmp_path / "eval" / TABLE_MD).read_text().splitlines()[2].split(" | ")
    assert cells[-3] == "-"


HOLD = """
import sys, time
from pathlib import Path
from hiexp_verl.io.files import only_one
with only_one(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_evaluations_in_two_processes_do_not_share_a_directory(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "eval")], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(HiExpError, match=r"another run .pid \d+. is writing"), only_one(tmp_path / "eval"):
            pass
    finally:
        other.kill()
        other.communicate()
    with only_one(tmp_path / "eval"):
        pass
