"""Episodes end as they should; a rollout survives interruption and says when it cannot go on."""

import asyncio
import json
import subprocess
import sys
import time

import numpy as np
import pytest

from hiexp_verl.config import SearchConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.io.datasets import read_trajectories
from hiexp_verl.io.files import only_one
from hiexp_verl.models.chat import PromptTooLong
from hiexp_verl.rollout.episode import EpisodeSettings, Players, episode
from hiexp_verl.rollout.rollout import Job, check_output, summarise
from hiexp_verl.rollout.rollout import play as play_all
from hiexp_verl.search import SearchFailed
from tests.support.factories import question, trajectory
from tests.support.paths import ROOT
from tests.support.scripted_policy import QUESTIONS, SEARCH, Scripted, guide, run


def play(client, search=SEARCH, **options):
    reading = SearchConfig(**{name: options.pop(name) for name in list(options) if name in SearchConfig.__dataclass_fields__})
    settings = EpisodeSettings(**{name: options.pop(name) for name in list(options) if name in EpisodeSettings.__dataclass_fields__})
    return asyncio.run(episode(question(), Players(client, search, options.pop("guide", None), reading), settings, **options))


def test_an_episode_searches_reads_and_answers():
    t = play(Scripted("<think>?</think> <search> capital France", "<answer>Paris</answer>"))  # the server kept the stop string
    assert [m["role"] for m in t.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert t.messages[2]["content"].endswith("</search>")
    assert t.messages[3]["content"].startswith('<information>\nDoc 1(Title: "Paris")')
    assert (t.prediction, t.score, t.correct, t.id) == ("Paris", 1.0, True, "q1#0")
    assert t.extra["searches"] == 1
    assert t.extra["completion_tokens"] == 6
    assert (t.extra["stop"], t.extra["em"], t.extra["shown"]) == ("answer", 1.0, [])


def test_hermes_calls_are_answered_without_a_wrapper():
    call = '<tool_call>\n{"name": "search", "arguments": {"query": "capital Italy"}}\n</tool_call>'
    t = play(Scripted(call, "<answer>Rome</answer>"), format="hermes")
    assert t.messages[3]["content"].startswith('Doc 1(Title: "Rome")')
    assert t.score == 0.1


@pytest.mark.parametrize(
    ("script", "finish", "stop"),
    [
        (["I do not know."], "stop", "no_answer"),
        (["<search></search>"], "stop", "no_answer"),
        (["<search> cut off", "never asked"], "length", "length"),
        (["<search>a</search>"] * 9, "stop", "search_limit"),
    ],
)
def test_episodes_without_an_answer_say_why_they_stopped(script, finish, stop):
    t = play(Scripted(*script, finish=finish), max_searches=2)
    assert (t.extra["stop"], t.prediction, t.score) == (stop, "", 0.0)
    assert t.extra["searches"] == (2 if stop == "search_limit" else 0)


def test_what_a_server_wrote_after_a_call_is_cut_off():
    t = play(Scripted("<search>a</search>\n<information>made up</information><answer>Paris</answer>", "<answer>Rome</answer>"))
    assert t.messages[2]["content"] == "<search>a</search>"
    assert t.prediction == "Rome"


def test_an_answer_in_made_up_tool_text_does_not_count():
    t = play(Scripted("<information> <answer>Paris</answer> </information>"))
    assert (t.prediction, t.extra["stop"]) == ("", "no_answer")


def test_a_failed_search_is_told_to_the_model_and_counted():
    class Broken:
        def search(self, queries, top_k):
            raise SearchFailed("time-out")

    t = play(Scripted("<search>a</search>", "<answer>Paris</answer>"), Broken())
    assert "The search failed (time-out)" in t.messages[3]["content"]
    assert (t.extra["failed_searches"], t.correct) == (1, True)


def test_a_prompt_that_grew_too_long_ends_the_episode_only():
    def too_long(seed):
        raise PromptTooLong("too long")

    t = play(Scripted("<search>a</search>", too_long))
    assert (t.extra["stop"], t.score, len(t.messages)) == ("prompt_too_long", 0.0, 4)


def test_a_first_prompt_that_does_not_fit_is_the_user_s_to_mend():
    def too_long(seed):
        raise PromptTooLong("too long")

    with pytest.raises(HiExpError, match="too long"):
        play(Scripted(too_long))


def test_experience_is_shown_at_the_start_and_after_a_search():
    t = play(Scripted("<search>capital France</search>", "<search>zzz</search>", "<answer>Paris</answer>"), guide=guide())
    system, tool, tool_without = t.messages[0]["content"], t.messages[3]["content"], t.messages[5]["content"]
    assert system.endswith("questions:\n- Name the country first.\n</experience>")
    assert tool.startswith("<experience>\n- Other lesson.\n</experience>\n<information>\n")  # its own is left out
    assert "<experience>" not in tool_without  # below the calibrated threshold
    assert [(row["entry"], row.get("search")) for row in t.extra["shown"]] == [("e2-a", None), ("e1-other", 1)]
    summary = summarise([t])
    assert (summary["prompt_hit_rate"], summary["e1_fire_rate"]) == (1.0, 0.5)
    own = play(Scripted("<search>capital France</search>", "<answer>Paris</answer>"), guide=guide(leave_one_out=False))
    assert "Own lesson." in own.messages[3]["content"]


def test_no_entry_is_shown_twice_in_an_episode():
    again = "<search>capital France</search>"
    t = play(Scripted(again, again, again, "<answer>Paris</answer>"), guide=guide(leave_one_out=False))
    shown = [(row["entry"], row.get("search")) for row in t.extra["shown"]]
    assert shown == [("e2-a", None), ("e1-own", 1), ("e1-other", 2)]  # the third time both were there before
    assert [m["content"].count("<experience>") for m in t.messages if m["role"] == "tool"] == [1, 1, 0]
    assert t.extra["e1_repeats"] == 2
    assert summarise([t])["e1_repeats"] == 2


def test_a_rollout_writes_every_episode_in_order_with_seeds_of_their_own(tmp_path):
    client, summary = run(tmp_path)
    trajectories = list(read_trajectories(tmp_path / "trajectories.jsonl"))
    assert [t.id for t in trajectories] == ["q1#0", "q1#1", "q1#2", "q2#0", "q2#1", "q2#2"]
    assert len(set(client.seeds)) == 12
    assert client.closed == 1
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert (summary["episodes"], summary["valid_search"], summary["mean_searches"], summary["answered"]) == (6, 1.0, 1.0, 1.0)
    assert summary["correct"] == pytest.approx(np.mean([t.correct for t in trajectories]), abs=1e-4)


def test_the_share_of_mixed_groups_counts_questions_with_both_outcomes():
    trajectories = [trajectory("a", True), trajectory("a", False), trajectory("b", True), trajectory("b", True)]
    assert summarise(trajectories)["mixed_groups"] == 0.5
    assert summarise([])["correct"] == 0.0


def test_an_interrupted_rollout_goes_on_as_if_nothing_had_happened(tmp_path):
    run(tmp_path / "whole")
    whole = (tmp_path / "whole" / "trajectories.jsonl").read_bytes()
    run(tmp_path / "cut")
    path = tmp_path / "cut" / "trajectories.jsonl"
    path.write_bytes(whole[: len(whole) // 2])  # torn in the middle of a line, as kill -9 leaves it
    left = whole[: len(whole) // 2].count(b"\n")
    client, summary = run(tmp_path / "cut", resume=True)
    assert summary["resumed"] == left > 0
    assert len(client.seeds) == 2 * (6 - left)

    def same(t):
        return t.id, t.messages, t.prediction, t.score

    assert [same(t) for t in read_trajectories(path)] == [same(t) for t in read_trajectories(tmp_path / "whole" / "trajectories.jsonl")]
    client, summary = run(tmp_path / "cut", resume=True)
    assert (client.seeds, summary["resumed"]) == ([], 6)


def test_episodes_are_on_disk_when_the_server_dies(tmp_path):
    asked = []

    def dying(seed):
        asked.append(seed)
        if len(asked) > 4:
            raise HiExpError("the server does not answer; start it")
        return "<answer>Paris</answer>"

    with pytest.raises(HiExpError, match="does not answer"):
        run(tmp_path, Scripted(dying), batch_size=1)
    assert len(list(read_trajectories(tmp_path / "trajectories.jsonl"))) == 4
    _, summary = run(tmp_path, Scripted("<answer>Paris</answer>"), resume=True)
    assert (summary["resumed"], summary["episodes"]) == (4, 6)


SLOW = """
import asyncio, sys
from pathlib import Path
from tests.support.scripted_policy import Scripted, run

class Slow(Scripted):
    async def chat(self, messages, **options):
        await asyncio.sleep(0.02)
        return await super().chat(messages, **options)

run(Path(sys.argv[1]), Slow("<search>capital</search>", lambda seed: "<answer>Paris</answer>"), k=200, batch_size=4)
"""


def test_what_was_finished_before_a_kill_is_kept(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(tmp_path)], cwd=ROOT)
    path = tmp_path / "trajectories.jsonl"
    deadline = time.monotonic() + 60
    while (not path.is_file() or path.read_bytes().count(b"\n") < 8) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    finished = path.read_bytes().count(b"\n")
    assert 8 <= finished < 400
    _, summary = run(tmp_path, Scripted("<search>capital</search>", "<answer>Paris</answer>"), k=200, resume=True)
    assert (summary["resumed"], summary["episodes"]) == (finished, 400)


def test_two_rollouts_do_not_share_a_directory(tmp_path):
    with only_one(tmp_path), pytest.raises(HiExpError, match=r"another run .pid \d+. is writing"):
        run(tmp_path)
    run(tmp_path)


def test_an_episode_that_is_there_twice_counts_once(tmp_path):
    run(tmp_path, k=2)
    path = tmp_path / "trajectories.jsonl"
    path.write_text(path.read_text() * 2)
    _, summary = run(tmp_path, k=2, resume=True)
    assert (summary["episodes"], len(path.read_text().splitlines())) == (4, 4)


def test_a_rollout_refuses_to_mix_or_overwrite(tmp_path):
    run(tmp_path)
    with pytest.raises(HiExpError, match="add --resume"):
        run(tmp_path)
    with pytest.raises(HiExpError, match=r"made with temperature = 1.0, now it is 0.0"):
        play_all(QUESTIONS, Players(Scripted("x"), SEARCH), Job(tmp_path, EpisodeSettings(temperature=0.0), 3, resume=True, progress=""))
    with pytest.raises(HiExpError, match="made with corpus = '', now it is 'other'"):
        run(tmp_path, resume=True, corpus="other")
    changed = [question("q1", "What is the capital of Spain?", ("Madrid",))]
    with pytest.raises(HiExpError, match="another question q1"):
        play_all(changed, Players(Scripted("x"), SEARCH), Job(tmp_path, EpisodeSettings(), 3, resume=True, progress=""))
    with pytest.raises(HiExpError, match="is a file"):
        check_output(tmp_path / "trajectories.jsonl", resume=True)
    with pytest.raises(HiExpError, match="nothing to roll out"):
        play_all([], Players(Scripted("x"), SEARCH), Job(tmp_path / "new", EpisodeSettings(), 3, progress=""))
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(HiExpError, match="damaged"):
        run(tmp_path, resume=True)
    (tmp_path / "run.json").unlink()
    with pytest.raises(HiExpError, match=r"has no run\.json, which describes a run"):
        run(tmp_path, resume=True)


def test_a_damaged_line_in_the_middle_is_an_error_with_its_number(tmp_path):
    run(tmp_path)
    path = tmp_path / "trajectories.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"{broken\n", *lines[2:]]))
    with pytest.raises(HiExpError, match=r"trajectories\.jsonl:2"):
        run(tmp_path, resume=True)


def test_half_a_character_in_a_query_and_an_engine_that_raises_are_failed_searches_of_that_episode(tmp_path):
    class Strict:
        def search(self, queries, top_k):
            assert [query.encode() for query in queries]
            if "caf" in queries[0]:
                raise RuntimeError("no index")
            return SEARCH.search(queries, top_k)

    call = '<tool_call>{"name": "search", "arguments": {"query": "caf\\ud83d x"}}</tool_call>'
    t = play(Scripted(call, "<answer>Paris</answer>"), Strict(), format="hermes")
    assert (t.prediction, t.extra["failed_searches"]) == ("Paris", 1)
    assert "The search failed (search engine error)" in t.messages[3]["content"]
    json.dumps(t.messages, ensure_ascii=False).encode()


def test_a_run_without_an_answer_and_without_a_search_says_so(tmp_path, caplog):
    run(tmp_path / "none", Scripted("I do not know."), k=1)
    assert f"none of {len(QUESTIONS)} episodes has an answer or a search that could be read" in caplog.text
    caplog.clear()
    run(tmp_path / "both", k=1)
    assert "could be read" not in caplog.text
