"""The agent loop token by token: vanilla is verl's own, experience is where it belongs and carries no loss."""

import asyncio
import json
from pathlib import Path

import pytest

pytestmark = [pytest.mark.verl, pytest.mark.compat]
pytest.importorskip("verl")

from verl.experimental.agent_loop.tool_agent_loop import ToolAgentLoop

from hiexp_verl.errors import HiExpError
from hiexp_verl.io.datasets import read_corpus
from hiexp_verl.io.questions import question_id_of
from hiexp_verl.plugin import agent_loop as agent_loop_module
from hiexp_verl.plugin.agent_loop import HiExpAgentLoop
from hiexp_verl.plugin.reward import compute_score
from hiexp_verl.plugin.search_tool import SearchTool
from hiexp_verl.rollout.episode import EpisodeSettings, Players, episode
from hiexp_verl.search.bm25 import BM25Search
from hiexp_verl.types import TRAJECTORY_KEY, Question
from tests.support.agent_episodes import QUESTION, TURNS, Reciting, config_of, run
from tests.support.chat_families import tokenizer_of
from tests.support.verl_fixtures import SYSTEM, compose, tiny_tokenizer, write_corpus, write_hek


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture
def paths(tmp_path):
    return {"corpus": write_corpus(tmp_path / "corpus.jsonl"), "hek": write_hek(tmp_path / "hek"), "root": tmp_path}


@pytest.mark.parametrize("dialect", ["search_tags", "hermes"])
def test_disabled_is_verls_own_tool_agent_token_for_token(paths, tokenizer, dialect):
    tools = paths["root"] / "tools.yaml"
    search = {"engine": "bm25", "corpus": str(paths["corpus"]), "top_k": 2}
    tools.write_text(
        json.dumps(
            {
                "tools": [
                    {
                        "class_name": "hiexp_verl.plugin.search_tool.SearchTool",
                        "config": {"type": "native", "format": dialect, "search": search},
                    }
                ]
            }
        )
    )
    disabled = config_of(paths, dialect, "hiexp.enabled=false", "hiexp.max_tokens_per_turn=64")
    ours, our_server = run(HiExpAgentLoop, disabled, tokenizer, TURNS[dialect])
    vanilla = config_of(paths, dialect, f"actor_rollout_ref.rollout.multi_turn.tool_config_path={tools}")
    verls, verl_server = run(ToolAgentLoop, vanilla, tokenizer, TURNS[dialect])
    assert our_server.prompts == verl_server.prompts and len(our_server.prompts) == 3
    assert our_server.limits == verl_server.limits == [None] * 3
    assert ours.prompt_ids == verls.prompt_ids
    assert ours.response_ids == verls.response_ids
    assert ours.response_mask == verls.response_mask
    assert ours.response_logprobs == verls.response_logprobs


def test_a_turn_is_limited_when_the_setting_says_so(paths, tokenizer):
    _, server = run(HiExpAgentLoop, config_of(paths, "hermes", "hiexp.max_tokens_per_turn=64"), tokenizer, TURNS["hermes"])
    assert server.limits == [64] * 3


@pytest.mark.parametrize("dialect", ["search_tags", "hermes"])
def test_strategies_enter_the_system_prompt_and_cases_the_tool_response(paths, tokenizer, dialect):
    output, _ = run(HiExpAgentLoop, config_of(paths, dialect), tokenizer, TURNS[dialect])
    prompt = tokenizer.decode(output.prompt_ids)
    assert prompt.startswith(f"<|im_start|>system\n{SYSTEM}")
    assert prompt.index("Resolve what is described") < prompt.index("Find the country before") < prompt.index(QUESTION)
    assert "Search for the mountain first" not in prompt
    masked = "".join(tokenizer.decode([t]) for t, m in zip(output.response_ids, output.response_mask, strict=True) if not m)
    assert masked.count("Search for the mountain first, then for its country.") >= 1
    written = tokenizer.decode([t for t, m in zip(output.response_ids, output.response_mask, strict=True) if m])
    assert written == "".join(turn + "<|im_end|>" for turn in TURNS[dialect])
    assert "Search for the mountain first" not in written
    record = output.extra_fields["hiexp"]
    assert record["queries"] == ["Noshak highest point country", "capital of Afghanistan"]
    assert {row["entry"] for row in record["shown"]} == {"e1-1", "e2-1", "e3-1"}
    assert [m["role"] for m in record["messages"]] == ["system", "user", "assistant", "tool", "assistant", "tool", "assistant"]


@pytest.mark.parametrize("position", ["after", "before"])
def test_documents_are_cut_never_experience(paths, tokenizer, position):
    turns = ["<search> Paris capital of France highest point </search>", "<answer> Paris </answer>"]
    limit = "actor_rollout_ref.rollout.multi_turn.max_tool_response_length=60"
    output, _ = run(HiExpAgentLoop, config_of(paths, "search_tags", limit, f"hiexp.tool.position={position}"), tokenizer, turns)
    text = tokenizer.decode(output.response_ids)
    assert "...(truncated)" in text
    block = "<experience>\n- Search for the mountain first, then for its country.\n</experience>"
    assert (f"{block}\n<information>" in text, f"\n{block}<|im_end|>" in text) == (position == "before", position == "after")


def test_no_entry_is_shown_twice_in_an_episode(paths, tokenizer):
    again = "<search> highest point of a country </search>"
    always = "hiexp.tool.min_score=-1.0"
    paths["hek"] = write_hek(paths["root"] / "two", "Name the country.")
    output, _ = run(HiExpAgentLoop, config_of(paths, "search_tags", always), tokenizer, [again, again, again, "<answer> Kabul </answer>"])
    record = output.extra_fields["hiexp"]
    assert [(row["entry"], row["search"]) for row in record["shown"] if row["place"] == "tool"] == [("e1-1", 1), ("e1-2", 2)]
    assert [m["content"].count("<experience>") for m in record["messages"] if m["role"] == "tool"] == [1, 1, 0]
    assert record["e1_repeats"] == 2
    assert [row["entry"] for row in record["shown"] if row["place"] == "prompt"] == ["e3-1", "e2-1"]


def test_parallel_calls_are_not_shown_the_same_entry(paths, tokenizer):
    call = TURNS["hermes"][0]
    several = ["hiexp.tool.min_score=-1.0", "actor_rollout_ref.rollout.multi_turn.max_parallel_calls=2"]
    output, _ = run(HiExpAgentLoop, config_of(paths, "hermes", *several), tokenizer, [f"{call}\n{call}", "<answer> Kabul </answer>"])
    record = output.extra_fields["hiexp"]
    assert (record["searches"], record["e1_repeats"]) == (2, 1)
    assert [row["entry"] for row in record["shown"] if row["place"] == "tool"] == ["e1-1"]
    assert [m["role"] for m in record["messages"]] == ["system", "user", "assistant", "tool", "tool", "assistant"]


def test_parallel_responses_that_the_budget_has_no_room_for_were_not_shown(paths, tokenizer):
    several = ["hiexp.tool.min_score=-1.0", "actor_rollout_ref.rollout.multi_turn.max_parallel_calls=2"]
    turns = [f"{TURNS['hermes'][0]}\n{TURNS['hermes'][1]}", "<answer> Kabul </answer>"]
    limit = f"data.max_response_length={len(tokenizer.encode(turns[0])) + 20}"
    output, _ = run(HiExpAgentLoop, config_of(paths, "hermes", *several, limit), tokenizer, turns)
    record = output.extra_fields["hiexp"]
    assert (record["searches"], {row["place"] for row in record["shown"]}) == (2, {"prompt"})
    assert [m["role"] for m in record["messages"]] == ["system", "user", "assistant"]


def test_a_tool_response_that_the_budget_has_no_room_for_was_not_shown(paths, tokenizer):
    always = "hiexp.tool.min_score=-1.0"
    paths["hek"] = write_hek(paths["root"] / "two", "Name the country.")
    whole, _ = run(HiExpAgentLoop, config_of(paths, "search_tags", always), tokenizer, TURNS["search_tags"])
    starts = [i for i in range(1, len(whole.response_mask)) if whole.response_mask[i - 1] > whole.response_mask[i]]
    limit = f"data.max_response_length={starts[1] + 20}"  # the first response fits, the second does not
    cut, _ = run(HiExpAgentLoop, config_of(paths, "search_tags", always, limit), tokenizer, TURNS["search_tags"])
    assert {row["search"] for row in whole.extra_fields["hiexp"]["shown"] if row["place"] == "tool"} == {1, 2}
    record = cut.extra_fields["hiexp"]
    assert {row["search"] for row in record["shown"] if row["place"] == "tool"} == {1}
    assert [m["role"] for m in record["messages"]] == ["system", "user", "assistant", "tool", "assistant"]


def test_experience_is_looked_up_while_the_search_runs(paths, tokenizer, monkeypatch):
    order = []

    class Slow:
        async def search(self, query, top_k):
            order.append("search starts")
            await asyncio.sleep(0.05)
            order.append("search ends")
            return []

        async def experience(self, request):
            order.append(request.place)
            return []

    monkeypatch.setattr(agent_loop_module, "retrieval_for", lambda _: Slow())
    run(HiExpAgentLoop, config_of(paths, "search_tags"), tokenizer, TURNS["search_tags"][1:])
    assert order[0] == "prompt" and order[-1] == "search ends" and sorted(order[1:3]) == ["search starts", "tool"]


def test_the_prompt_never_outgrows_verls_limit(paths, tokenizer):
    plain = tokenizer.apply_chat_template(
        [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
    )["input_ids"]
    limit = f"data.max_prompt_length={len(plain) + 20}"
    output, _ = run(HiExpAgentLoop, config_of(paths, "search_tags", limit), tokenizer, TURNS["search_tags"])
    assert output.prompt_ids == plain, "experience that does not fit is dropped, and nothing is cut"


def test_a_question_never_sees_what_was_distilled_from_itself_alone(paths, tokenizer):
    output, _ = run(HiExpAgentLoop, config_of(paths, "search_tags"), tokenizer, TURNS["search_tags"], question_id="train-1")
    assert "e1-1" not in {row["entry"] for row in output.extra_fields["hiexp"]["shown"]}
    seen, _ = run(
        HiExpAgentLoop, config_of(paths, "search_tags", "hiexp.leave_one_out=false"), tokenizer, TURNS["search_tags"], question_id="train-1"
    )
    assert "e1-1" in {row["entry"] for row in seen.extra_fields["hiexp"]["shown"]}


def test_a_row_without_an_id_is_known_by_its_question(paths, tokenizer):
    config, turns = config_of(paths, "search_tags"), TURNS["search_tags"]
    asked = "Answer the given question. Question: Which country has Noshak as its highest point?\n"
    own, _ = run(HiExpAgentLoop, config, tokenizer, turns, user=asked, extra_info={"index": 0})
    other, _ = run(HiExpAgentLoop, config, tokenizer, turns, user="Question: Which country has a peak?", extra_info={"index": 0})
    assert "e1-1" not in {row["entry"] for row in own.extra_fields["hiexp"]["shown"]}
    assert "e1-1" in {row["entry"] for row in other.extra_fields["hiexp"]["shown"]}


@pytest.mark.parametrize(
    ("extra_info", "question_id", "question"),
    [
        ({"index": 0}, "q-", "Who?"),
        ({"question_id": "", "question": ""}, "q-", "Who?"),
        ({"question": "Who?"}, "q-", "Who?"),
        ({"question_id": "7"}, "7", "Who?"),
    ],
)
def test_every_episode_is_known_by_a_question_and_an_id(paths, tokenizer, extra_info, question_id, question):
    turns, user = ["<answer> Kabul </answer>"], "Question: Who?"
    output, _ = run(HiExpAgentLoop, config_of(paths, "search_tags"), tokenizer, turns, user=user, extra_info=extra_info)
    reward = compute_score("", "", ["Kabul"], {"hiexp": output.extra_fields["hiexp"]})
    row = json.loads(reward[TRAJECTORY_KEY])
    assert row["question"] == question
    wanted = question_id_of(question) if question_id == "q-" else question_id
    assert (row["question_id"], row["id"], row["extra"]["split"]) == (wanted, f"{wanted}#0", "train")


def test_a_broken_call_is_counted_and_the_episode_goes_on(paths, tokenizer):
    turns = ['<tool_call>\n{"name": "search", "arguments": {"q": 1}}\n</tool_call>', "<answer> Kabul </answer>"]
    output, _ = run(HiExpAgentLoop, config_of(paths, "hermes"), tokenizer, turns)
    record = output.extra_fields["hiexp"]
    assert (record["searches"], record["failed_searches"]) == (1, 1)
    assert "The search failed" in tokenizer.decode(output.response_ids)


def test_a_dead_retrieval_server_is_a_message_and_a_counter(paths, tokenizer):
    http = [
        "hiexp.search.engine=http",
        "hiexp.search.url=http://127.0.0.1:9/retrieve",
        "hiexp.search.retries=0",
        "hiexp.search.timeout=1.0",
    ]
    output, _ = run(HiExpAgentLoop, config_of(paths, "search_tags", *http), tokenizer, TURNS["search_tags"])
    record = output.extra_fields["hiexp"]
    assert (record["searches"], record["failed_searches"]) == (2, 2)
    assert record["messages"][-1]["content"].startswith("<answer> Kabul")


def test_an_unknown_setting_stops_the_loop_with_the_nearest_name(paths, tokenizer):
    with pytest.raises(HiExpError, match="did you mean 'min_score'"):
        run(HiExpAgentLoop, config_of(paths, "search_tags", "+hiexp.tool.min_scor=0.5"), tokenizer, TURNS["search_tags"])


def test_the_shipped_tool_list_is_where_the_config_says():
    path = Path(compose("+hiexp=grpo", "actor_rollout_ref.rollout.name=vllm").actor_rollout_ref.rollout.multi_turn.tool_config_path)
    assert path.is_file()


CALL = {"search_tags": "<search> Noshak </search>", "hermes": TURNS["hermes"][0]}
ANSWER, UNSURE = "<answer> Kabul </answer>", "I do not know."


@pytest.mark.parametrize("dialect", ["search_tags", "hermes"])
@pytest.mark.parametrize(
    ("script", "counts"),
    [
        (["CALL", ANSWER], True),
        (["CALL", f"{ANSWER} <answer> Paris </answer> {ANSWER}"], True),
        (["CALL", "CALL", UNSURE], False),
        ([f"CALL {ANSWER}", UNSURE], False),
        ([f"CALL {ANSWER}", "CALL", ANSWER], True),
        ([f"CALL {ANSWER}", "<answer> Paris </answer>"], False),
        (["CALL", "CALL", f"CALL {ANSWER}"], False),  # the last turn that is allowed
        (["CALL", f"<information>{ANSWER}</information>"], False),
    ],
)
def test_an_answer_counts_in_the_last_turn_alone_and_not_beside_a_search(paths, tokenizer, dialect, script, counts):
    turns = [turn.replace("CALL", CALL[dialect]) for turn in script]
    assert both_predict(paths, tokenizer, dialect, turns) == (["Kabul"] if counts else ["Paris"] if "Paris" in turns[-1] else [""]) * 2


@pytest.mark.parametrize(("dialect", "prediction"), [("search_tags", "Kabul"), ("hermes", "")])
def test_a_search_after_an_answer_is_one_where_the_parser_runs_it(paths, tokenizer, dialect, prediction):
    turns = [f"{ANSWER} {CALL[dialect]}", UNSURE]
    assert both_predict(paths, tokenizer, dialect, turns) == [prediction] * 2
    assert both_predict(paths, tokenizer, dialect, [CALL[dialect], CALL[dialect], turns[0]]) == [prediction] * 2


def both_predict(paths, tokenizer, dialect, turns):
    """Return what verl's loop and an episode without verl take for the answer; three turns at most."""
    limit = "actor_rollout_ref.rollout.multi_turn.max_assistant_turns=3"
    output, _ = run(HiExpAgentLoop, config_of(paths, dialect, limit, "hiexp.enabled=false"), tokenizer, turns)
    reward = compute_score("", "", ["Kabul"], {"hiexp": output.extra_fields["hiexp"]})
    settings = EpisodeSettings(format=dialect, max_searches=2)
    asked = Question("val-1", QUESTION, ("Kabul",))
    played = asyncio.run(episode(asked, Players(Reciting(turns), BM25Search(read_corpus(paths["corpus"]))), settings))
    assert (reward["score"], reward["format"]) == (played.score, played.extra["format"])
    return [json.loads(reward[TRAJECTORY_KEY])["prediction"], played.prediction]


@pytest.mark.parametrize(
    ("arm", "split", "levels"),
    [
        ("full", "train", {"e1", "e2", "e3"}),
        ("none", "train", set()),
        ("prompt", "train", {"e2", "e3"}),
        ("tool", "train", {"e1"}),
        ("e2", "train", {"e2"}),
        ("full hiexp.val_arm=none", "train", {"e1", "e2", "e3"}),
        ("full hiexp.val_arm=none", "val", set()),
        ("none hiexp.val_arm=full", "train", set()),
        ("none hiexp.val_arm=full", "val", {"e1", "e2", "e3"}),
    ],
)
def test_an_arm_takes_away_what_it_names_and_nothing_else(paths, tokenizer, arm, split, levels):
    config = config_of(paths, "search_tags", *f"hiexp.arm={arm}".split(), "hiexp.tool.min_score=-1.0")
    extra_info = {"question_id": "val-1", "question": QUESTION, "split": split}
    output, _ = run(HiExpAgentLoop, config, tokenizer, TURNS["search_tags"], extra_info=extra_info)
    record = output.extra_fields["hiexp"]
    assert {row["level"] for row in record["shown"]} == levels
    assert record["searches"] == 2 and record["answer_text"].endswith("<answer> Kabul </answer>")


@pytest.mark.parametrize("told", ["jsonl", "train", "test", None, "nothing"])
def test_rows_say_which_of_the_runs_files_they_come_from_whatever_the_file_says(tmp_path, tokenizer, told):
    import datasets

    from hiexp_verl.plugin.dataset import QuestionDataset

    ending = "jsonl" if told == "jsonl" else "parquet"
    files = {name: str(tmp_path / f"{name}.{ending}") for name in ("train", "val")}
    for name, file in files.items():
        if told == "jsonl":
            Path(file).write_text(json.dumps({"id": name, "question": "Who?", "answer": "me"}) + "\n")
            continue
        row = {"data_source": "nq", "prompt": [{"role": "user", "content": "Who?"}], "reward_model": {"ground_truth": {"target": ["me"]}}}
        row |= {} if told == "nothing" else {"extra_info": {"index": 7, "split": told}}
        datasets.Dataset.from_list([row]).to_parquet(file)
    data = compose("+hiexp=grpo", f"data.train_files={files['train']}", f"data.val_files={files['val']}").data
    for name in ("train", "val"):
        dataset = QuestionDataset(data_files=files[name], tokenizer=tokenizer, config=data)
        assert dataset[0]["extra_info"]["split"] == name
        assert dataset[0]["index"] == (0 if told in ("jsonl", "nothing") else 7)


@pytest.mark.parametrize(("session", "levels"), [(0, set()), (1, {"e2", "e3"}), (2, {"e1"}), (3, {"e1", "e2", "e3"})])
def test_sessions_of_a_stratified_group_see_different_levels_in_training_alone(paths, tokenizer, session, levels):
    config = config_of(
        paths, "search_tags", "hiexp.group.arms=[none,prompt,tool,full]", "hiexp.tool.min_score=-1.0", "actor_rollout_ref.rollout.n=4"
    )
    for split, seen in (("train", levels), ("val", {"e1", "e2", "e3"})):
        row = {"question_id": "val-1", "question": QUESTION, "split": split}
        output, _ = run(HiExpAgentLoop, config, tokenizer, TURNS["search_tags"], extra_info=row, session=session)
        record = output.extra_fields["hiexp"]
        assert {row["level"] for row in record["shown"]} == seen
        assert record["arm"] == (["none", "prompt", "tool", "full"][session] if split == "train" else "full")


@pytest.mark.parametrize("position", ["after", "before"])
@pytest.mark.parametrize("dialect", ["search_tags", "hermes"])
def test_a_stripped_rollout_is_the_one_without_experience_token_for_token(paths, tokenizer, dialect, position):
    always = ["hiexp.tool.min_score=-1.0", "hiexp.group.strip=true", f"hiexp.tool.position={position}"]
    paths["hek"] = write_hek(paths["root"] / "two", "Name the country.")
    guided, server = run(HiExpAgentLoop, config_of(paths, dialect, *always), tokenizer, TURNS[dialect])
    plain, plain_server = run(HiExpAgentLoop, config_of(paths, dialect, "hiexp.arm=none"), tokenizer, TURNS[dialect])
    assert len(server.prompts[-1]) > len(plain_server.prompts[-1]), "it was sampled with experience"
    record = guided.extra_fields["hiexp"]
    assert record["stripped"] and {row["level"] for row in record["shown"]} == {"e1", "e2", "e3"}
    assert guided.prompt_ids == plain.prompt_ids
    assert guided.response_ids == plain.response_ids
    assert guided.response_mask == plain.response_mask
    assert guided.response_logprobs == plain.response_logprobs
    assert "<experience>" in record["messages"][0]["content"], "the dump says what was seen"


def test_a_row_s_own_tools_are_those_of_its_stripped_prompt(paths):
    tokenizer = tokenizer_of("qwen3")  # whose template names the tools
    row = {"question_id": "q", "question": QUESTION, "tool_selection": ["no such tool"]}
    strip, none = ("hiexp.group.strip=true", "hiexp.arm=none")
    guided, plain = (
        run(HiExpAgentLoop, config_of(paths, "hermes", each), tokenizer, [TURNS["hermes"][2]], extra_info=row)[0] for each in (strip, none)
    )
    assert guided.extra_fields["hiexp"]["stripped"] and guided.prompt_ids == plain.prompt_ids
    assert "function" not in tokenizer.decode(plain.prompt_ids), "verl shows the row no tool"


def test_validation_is_never_stripped(paths, tokenizer):
    row = {"question_id": "val-1", "question": QUESTION, "split": "val"}
    output, _ = run(HiExpAgentLoop, config_of(paths, "hermes", "hiexp.group.strip=true"), tokenizer, TURNS["hermes"], extra_info=row)
    assert "stripped" not in output.extra_fields["hiexp"]
    assert "Resolve what is described" in tokenizer.decode(output.prompt_ids)


def test_every_turn_has_a_seed_of_its_own_that_comes_back(paths, tokenizer):
    config = config_of(paths, "hermes", "hiexp.seed=7")
    seeds = [run(HiExpAgentLoop, config, tokenizer, TURNS["hermes"], session=session)[1].seeds for session in (0, 1, 0)]
    assert len(set(seeds[0] + seeds[1])) == 6 and seeds[0] == seeds[2]
    assert run(HiExpAgentLoop, config_of(paths, "hermes"), tokenizer, TURNS["hermes"])[1].seeds == [None] * 3


def test_what_the_budget_had_no_room_for_is_counted(paths, tokenizer):
    config = config_of(paths, "hermes", "hiexp.prompt.max_tokens=0", "hiexp.tool.max_tokens=0", "hiexp.tool.min_score=-1.0")
    output, _ = run(HiExpAgentLoop, config, tokenizer, TURNS["hermes"])
    record = output.extra_fields["hiexp"]
    assert (record["shown"], record["dropped"]) == ([], 4)  # E3 and E2 at the start, an E1 at each of two searches


@pytest.mark.parametrize("dialect", ["search_tags", "hermes"])
def test_experience_never_ends_an_episode_that_would_have_gone_on(paths, tokenizer, dialect):
    turns = [TURNS[dialect][0], TURNS[dialect][2]]
    always = "hiexp.tool.min_score=-1.0"
    plain, _ = run(HiExpAgentLoop, config_of(paths, dialect, "hiexp.arm=none"), tokenizer, turns)
    for spare in (1, 20, 60, 150, 400):  # tokens that are left when it has answered
        limit = f"data.max_response_length={len(plain.response_ids) + spare}"
        output, _ = run(HiExpAgentLoop, config_of(paths, dialect, always, limit), tokenizer, turns)
        record = output.extra_fields["hiexp"]
        assert "Kabul" in record["answer_text"], spare
        assert record["dropped"] + sum(row["place"] == "tool" for row in record["shown"]) == 1
    assert record["dropped"] == 0, "there is room for it in the end"


def test_experience_of_parallel_calls_never_ends_an_episode(paths, tokenizer):
    several = ["actor_rollout_ref.rollout.multi_turn.max_parallel_calls=2", "hiexp.tool.min_score=-1.0", "hiexp.tool.max_tokens=150"]
    paths["hek"] = write_hek(paths["root"] / "two", "Name the country.")
    turns = ["\n".join(TURNS["hermes"][:2]), TURNS["hermes"][2]]
    plain, _ = run(HiExpAgentLoop, config_of(paths, "hermes", *several, "hiexp.arm=none"), tokenizer, turns)
    for spare in range(1, 600, 40):
        limit = f"data.max_response_length={len(plain.response_ids) + spare}"
        output, _ = run(HiExpAgentLoop, config_of(paths, "hermes", *several, limit), tokenizer, turns)
        assert "Kabul" in output.extra_fields["hiexp"]["answer_text"], spare
    assert len([row for row in output.extra_fields["hiexp"]["shown"] if row["place"] == "tool"]) == 2, "there is room for both in the end"


def test_parallel_searches_are_numbered_in_the_order_of_their_calls(paths, tokenizer, monkeypatch):
    slow_first = iter([0.2, 0.0])
    original = SearchTool.execute

    async def execute(self, *arguments, **more):
        await asyncio.sleep(next(slow_first))
        return await original(self, *arguments, **more)

    monkeypatch.setattr(SearchTool, "execute", execute)
    calls = "\n".join(TURNS["hermes"][:2])
    several = ["actor_rollout_ref.rollout.multi_turn.max_parallel_calls=2"]
    output, _ = run(HiExpAgentLoop, config_of(paths, "hermes", *several), tokenizer, [calls, "<answer> Kabul </answer>"])
    assert output.extra_fields["hiexp"]["queries"] == ["Noshak highest point country", "capital of Afghanistan"]


def test_an_arm_that_the_control_leaves_nothing_is_without_experience(paths, tokenizer):
    output, _ = run(HiExpAgentLoop, config_of(paths, "hermes", "hiexp.arm=none"), tokenizer, TURNS["hermes"])
    assert output.extra_fields["hiexp"]["arm"] == "none"


@pytest.mark.parametrize(
    ("engine", "seed", "stop"),
    [("vllm", "seed", {"include_stop_str_in_output": True}), ("sglang", "sampling_seed", {"no_stop_trim": True})],
)
def test_each_engine_gets_seed_and_stop_by_its_own_names(paths, tokenizer, engine, seed, stop):
    settings = ("hiexp.seed=7", "hiexp.stop_at_search=true", f"actor_rollout_ref.rollout.name={engine}")
    for sampling in run(HiExpAgentLoop, config_of(paths, "search_tags", *settings), tokenizer, TURNS["search_tags"])[1].sampling:
        assert [name for name in ("seed", "sampling_seed") if name in sampling] == [seed]
        assert sampling.items() >= {"stop": ["</search>"], **stop}.items()
    for sampling in run(HiExpAgentLoop, config_of(paths, "hermes", *settings), tokenizer, TURNS["hermes"])[1].sampling:
        assert "stop" not in sampling


def test_the_text_of_an_episode_travels_only_where_it_is_dumped(paths, tokenizer):
    nowhere = ("trainer.rollout_data_dir=null", "trainer.validation_data_dir=null")
    for split, dump, wanted in (
        ("val", (), False),
        ("train", (), False),
        ("train", ("hiexp.dump_dir=dumps",), True),
        ("val", ("hiexp.dump_dir=dumps",), False),
        ("train", ("trainer.rollout_data_dir=dumps",), True),
        ("val", ("trainer.validation_data_dir=dumps",), True),
    ):
        config = config_of(paths, "hermes", *nowhere, *dump)
        output, _ = run(HiExpAgentLoop, config, tokenizer, TURNS["hermes"], extra_info={"split": split})
        record = output.extra_fields["hiexp"]
        assert bool(record["messages"]) == wanted and record["searches"] == 2 and record["answer_text"]
        reward = compute_score("", "", {"target": ["Kabul"]}, {"hiexp": record})
        assert (TRAJECTORY_KEY in reward) == wanted
