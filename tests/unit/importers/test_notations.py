"""Calls, results and answers of other programs are read alike, however they are written."""

import json

import pytest

from hiexp_verl.importers import FORMATS
from hiexp_verl.importers.stream import import_trajectories
from hiexp_verl.importers.turns import as_turns
from hiexp_verl.io.datasets import read_trajectories
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.protocol import searches

ASKED = {"role": "user", "content": "Who wrote Dune?"}
ANSWERED = {"role": "assistant", "content": "<answer>Herbert</answer>"}
FOUND = "Dune is by Herbert."


def imported(tmp_path, rows, format="openai"):
    write_jsonl(tmp_path / "in.jsonl", rows)
    report = import_trajectories([tmp_path / "in.jsonl"], tmp_path / "out.jsonl", FORMATS[format]())
    return report, list(read_trajectories(tmp_path / "out.jsonl"))


def called(text="", **fields):
    return {"role": "assistant", "content": text, **fields}


def function(arguments, name="search"):
    return {"tool_calls": [{"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}]}


CALLS = {
    "search tags": called("<search>Dune author</search>"),
    "hermes": called('<tool_call>{"name": "search", "arguments": {"query": "Dune author"}}</tool_call>'),
    "hermes, verl's own tool": called('<tool_call>{"name": "search", "arguments": {"query_list": ["Dune author"]}}</tool_call>'),
    "tool_calls": called(**function('{"query": "Dune author"}')),
    "tool_calls, parsed, another name": called(**function({"q": "Dune author"}, "web_search")),
    "tool_calls without content": {"role": "assistant", **function({"queries": ["Dune author"]})},
    "function_call": called(function_call={"name": "search", "arguments": '{"query": "Dune author"}'}),
    "Qwen's XML": called("<tool_call>\n<function=search>\n<parameter=query>\nDune author\n</parameter>\n</function>\n</tool_call>"),
    "Llama 3": called('<|python_tag|>{"name": "search", "parameters": {"query": "Dune author"}}'),
    "JSON alone": called('{"name": "search", "parameters": {"query": "Dune author"}}'),
    "Mistral": called('[TOOL_CALLS][{"name": "search", "arguments": {"query": "Dune author"}}]'),
    "ReAct": called("Thought: first the author.\nAction: Search[Dune author]"),
    "ReAct in two lines": called("Action: search\nAction Input: Dune author"),
    "Anthropic": {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "search", "input": {"query": "Dune author"}}]},
    "GLM": called("Look.\n<tool_call>search\n<arg_key>query</arg_key>\n<arg_value>Dune author</arg_value>\n</tool_call>"),
    "XML with a list": called('<function=search><parameter=query_list>["Dune author"]</parameter></function>'),
    "Llama 3, named": called('<function=search>{"query": "Dune author"}</function>'),
    "MiniMax": called('<invoke name="search">\n<parameter name="query">Dune author</parameter>\n</invoke>'),
    "DeepSeek": called(
        "<\uff5ctool\u2581calls\u2581begin\uff5c><\uff5ctool\u2581call\u2581begin\uff5c>function<\uff5ctool\u2581sep\uff5c>search\n```json\n"
        '{"query": "Dune author"}\n```<\uff5ctool\u2581call\u2581end\uff5c><\uff5ctool\u2581calls\u2581end\uff5c>'
    ),
    "DeepSeek, shorter": called(
        '<\uff5ctool\u2581call\u2581begin\uff5c>search<\uff5ctool\u2581sep\uff5c>{"query": "Dune author"}<\uff5ctool\u2581call\u2581end\uff5c>'
    ),
    "Kimi": called('<|tool_call_begin|>functions.search:0<|tool_call_argument_begin|>{"query": "Dune author"}<|tool_call_end|>'),
    "a key of another name": called(**function({"search_term": "Dune author"})),
    "the one text of a tool for searching": called(**function({"input": "Dune author"}, "wiki_search")),
    "a text alone": called(**function("Dune author")),
    "a list of objects": called(**function({"queries": [{"query": "Dune author"}]})),
    "a list of calls": called('<tool_call>[{"name": "search", "arguments": {"query": "Dune author"}}]</tool_call>'),
    "Granite": called('<|tool_call|>[{"name": "search", "arguments": {"query": "Dune author"}}]'),
    "Phi": called('functools[{"name": "search", "arguments": {"query": "Dune author"}}]'),
    "Command": called('Action: ```json\n[{"tool_name": "search", "parameters": {"query": "Dune author"}}]\n```'),
    "Python": called('[search(query="Dune author")]'),
    "Gemma": called('```tool_code\nprint(search(query="Dune author"))\n```'),
    "R1-Searcher": called("<|begin_of_query|>Dune author<|end_of_query|>"),
    "Search-o1": called("<|begin_search_query|>Dune author<|end_search_query|>"),
    "gpt-oss": called('<|channel|>commentary to=functions.search <|constrain|>json<|message|>{"query": "Dune author"}<|call|>'),
    "Mistral, named": called('[TOOL_CALLS]search[ARGS]{"query": "Dune author"}'),
    "fenced JSON": called('I look.\n```json\n{"name": "search", "arguments": {"query": "Dune author"}}\n```'),
    "fenced JSON in a tag": called('<tool_call>\n```\n{"name": "search", "parameters": {"query": "Dune author"}}\n```\n</tool_call>'),
    "Gemini": {"role": "model", "parts": [{"text": "Look."}, {"functionCall": {"name": "search", "args": {"query": "Dune author"}}}]},
    "in the thoughts": {"role": "assistant", "content": None, "reasoning_content": "<search>Dune author</search>"},
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_is_read_in_every_notation(tmp_path, call):
    report, [trajectory] = imported(
        tmp_path, [{"answer": "Herbert", "messages": [ASKED, call, {"role": "tool", "content": FOUND}, ANSWERED]}]
    )
    assert [(s.query, s.documents) for s in searches(trajectory.messages)] == [("Dune author", FOUND)]
    assert trajectory.correct and not any(count for _, count, _ in report.lacks())


RESULTS = {
    **{
        role: {"role": role, "content": FOUND}
        for role in ("tool", "function", "ipython", "observation", "user", "system", "search", "Tool-Response")
    },
    "in other tags": {"role": "user", "content": f"<search_result>\n{FOUND}\n</search_result>"},
    "in tags": {"role": "user", "content": f"<information>\n{FOUND}\n</information>"},
    "Qwen's template": {"role": "user", "content": f"<tool_response>\n{FOUND}\n</tool_response>"},
    "Anthropic": {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": FOUND}]},
    "Anthropic, in parts": {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": FOUND}]}]},
    "Gemini": {"role": "user", "parts": [{"functionResponse": {"name": "search", "response": {"output": FOUND}}}]},
    "verl's search tool": {"role": "tool", "content": json.dumps({"result": FOUND})},
}


@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
def test_a_result_is_read_whoever_carries_it(tmp_path, result):
    _, [trajectory] = imported(tmp_path, [{"answer": "Herbert", "messages": [ASKED, CALLS["hermes"], result, ANSWERED]}])
    assert [(s.query, s.documents) for s in searches(trajectory.messages)] == [("Dune author", FOUND)]
    assert [message["role"] for message in trajectory.messages] == ["user", "assistant", "tool", "assistant"]


@pytest.mark.parametrize(
    "text",
    [
        f"<search>Dune author</search>\n<information>{FOUND}</information>\n<answer>Herbert</answer>",
        f"<search>Dune author</search><result>{FOUND}</result><answer>Herbert</answer>",
        f"<search>Dune author</search><search_result>{FOUND}</search_result><answer>Herbert</answer>",
        f"<|begin_search_query|>Dune author<|end_search_query|><|begin_search_result|>{FOUND}<|end_search_result|>\\boxed{{Herbert}}",
        f"Thought: look.\nAction: Search[Dune author]\nObservation: {FOUND}\nThought: done.\nAction: Finish[Herbert]",
    ],
)
def test_an_episode_in_one_message_is_split_into_turns(tmp_path, text):
    _, [trajectory] = imported(tmp_path, [{"answer": "Herbert", "messages": [ASKED, called(text)]}])
    assert [(s.query, s.documents.removeprefix("Observation: ")) for s in searches(trajectory.messages)] == [("Dune author", FOUND)]
    assert trajectory.prediction == "Herbert" and trajectory.correct


def test_two_results_in_one_message_belong_to_two_calls(tmp_path):
    two = called("".join(f'<tool_call>{{"name": "search", "arguments": {{"query": "{q}"}}}}</tool_call>' for q in "ab"))
    both = {"role": "user", "content": "<tool_response>\nA\n</tool_response>\n<tool_response>\nB\n</tool_response>"}
    _, [trajectory] = imported(tmp_path, [{"answer": "Herbert", "messages": [ASKED, two, both, ANSWERED]}])
    assert [(s.query, s.documents) for s in searches(trajectory.messages)] == [("a", "A"), ("b", "B")]


def test_turns_of_our_own_are_unchanged():
    ours = (
        {"role": "system", "content": "Search."},
        {"role": "user", "content": "<documents>old</documents> Who?"},
        CALLS["search tags"],
        {"role": "tool", "content": f"<information>\n{FOUND}\n</information>"},
        called("<information>made up</information><search>again</search>"),
        {"role": "tool", "content": "<information>\nNo documents found.\n</information>"},
        ANSWERED,
    )
    assert as_turns(ours) == ours


@pytest.mark.parametrize(
    ("last", "prediction"),
    [
        ("Final Answer: Herbert", "Herbert"),
        ("**Answer:** Herbert", "Herbert"),
        ("I know it.\n<final_answer>Herbert</final_answer>", "Herbert"),
        ("So \\boxed{Herbert}", "Herbert"),
        ("It was him.\n\n# Answer\nHerbert", "Herbert"),
        ("### 2. Final Answer\n\n- **Herbert**\n\n### References\n1. Dune (novel)", "Herbert"),
        ("Answer: Herbert **Sources:** [1]", "Herbert"),
        ("Sources:\n1. Dune\n\nAnswer: Herbert", "Herbert"),
        ("<answer>\nHerbert\n\nSources: Dune (novel)\n</answer>", "Herbert"),
        ("<final_answer>Herbert\nReferences:\n1. Dune</final_answer>", "Herbert"),
        ('```json\n{"name": "Herbert"}\n```\nAnswer: Herbert', "Herbert"),
        ("So the answer is **Herbert**.", "Herbert"),
        ('{"answer": "Herbert"}', "Herbert"),
        ("It was Herbert.", ""),
        ("Answer: Clarke <search>Dune</search>", ""),
    ],
)
def test_an_answer_without_our_tags_is_read_or_counted(tmp_path, caplog, last, prediction):
    found = {"role": "tool", "content": FOUND}
    report, [trajectory] = imported(tmp_path, [{"answer": "Herbert", "messages": [ASKED, CALLS["hermes"], found, called(last)]}])
    assert trajectory.prediction == prediction
    assert report.without_answer == (not prediction)
    assert ("1 of 1 trajectories are without an answer" in caplog.text) == (not prediction)


def test_searches_that_brought_nothing_back_are_counted(tmp_path, caplog):
    report, _ = imported(tmp_path, [{"answer": "Herbert", "messages": [ASKED, CALLS["hermes"], ANSWERED]}])
    assert report.without_result == 1 and "are without what a search found" in caplog.text
    assert "1 written without what a search found" in report.summary()


@pytest.mark.parametrize(("word", "correct"), [(1, True), (0, False), ("True", True), ("no", False), ("correct", True)])
def test_a_label_is_read_as_others_write_it(tmp_path, word, correct):
    _, [trajectory] = imported(tmp_path, [{"answer": "Herbert", "correct": word, "messages": [ASKED, ANSWERED]}])
    assert trajectory.correct is correct


def test_a_published_row_of_r1_searcher_and_a_transcript_of_search_r1_are_read(tmp_path):
    text = (
        "<|begin_of_query|> Dune author <|end_of_query|>\n<|begin_of_documents|>\n"
        f'(1)"Title: Dune Text: {FOUND}"\n<|end_of_documents|>\n<answer> Herbert </answer>'
    )
    rows = [
        {"question": "Who wrote Dune?", "answer": "Herbert", "gen_text_store": text, "pred_ans": " Herbert ", "gpt4o_output": "True"},
        {
            "question": "Answer by <answer>. Question: Who wrote Dune, then?",
            "answer": "Herbert",
            "text": f"<search> Dune author </search> <information>{FOUND}</information> <answer> Herbert </answer>",
        },
    ]
    _, trajectories = imported(tmp_path, rows, "r1-searcher")
    assert [(t.question, t.prediction, t.correct) for t in trajectories] == [
        ("Who wrote Dune?", "Herbert", True),
        ("Who wrote Dune, then?", "Herbert", True),
    ]
    assert [[(s.query, FOUND in s.documents) for s in searches(t.messages)] for t in trajectories] == [[("Dune author", True)]] * 2


TEMPLATES = {  # what begins a text, a turn, the end of a turn; the names of assistant and tool
    "ChatML": ("", "<|im_start|>{}\n", "<|im_end|>\n", "assistant", "tool"),
    "Llama 3": ("<|begin_of_text|>", "<|start_header_id|>{}<|end_header_id|>\n\n", "<|eot_id|>", "assistant", "ipython"),
    "Gemma": ("<bos>", "<start_of_turn>{}\n", "<end_of_turn>\n", "model", "tool"),
}


@pytest.mark.parametrize(("text", "turn", "end", "assistant", "tool"), TEMPLATES.values(), ids=TEMPLATES)
def test_dumps_of_known_chat_templates_are_split_into_turns(tmp_path, text, turn, end, assistant, tool):
    row = {
        "input": f"{text}{turn.format('user')}Who wrote Dune?{end}{turn.format(assistant)}",
        "output": f"<search>Dune author</search>{end}{turn.format(tool)}{FOUND}{end}{turn.format(assistant)}<answer>Herbert</answer>{end}",
        "gts": "{'target': ['Herbert']}",
        "score": 1.0,
    }
    _, [trajectory] = imported(tmp_path, [row], "verl-dump")
    assert (trajectory.question, trajectory.prediction, trajectory.correct) == ("Who wrote Dune?", "Herbert", True)
    assert [(s.query, s.documents) for s in searches(trajectory.messages)] == [("Dune author", FOUND)]


def test_a_dump_of_llama_3_without_its_special_tokens_is_read(tmp_path):
    row = {
        "input": "system\n\nSearch well.user\n\nWho wrote Dune?assistant\n\n",
        "output": f"<search>Dune author</search>tool\n\n<information>{FOUND}</information>assistant\n\n<answer>Herbert</answer>",
        "gts": "Herbert",
        "score": 1.0,
    }
    _, [trajectory] = imported(tmp_path, [row], "verl-dump")
    assert (trajectory.question, trajectory.prediction) == ("Who wrote Dune?", "Herbert")
    assert [(s.query, s.documents) for s in searches(trajectory.messages)] == [("Dune author", FOUND)]


def test_a_dump_of_an_unknown_template_is_refused_by_name(tmp_path, caplog):
    row = {"input": "[INST] Who wrote Dune? [/INST]", "output": "<answer>Herbert</answer>", "gts": "Herbert", "score": 1.0}
    known = {"input": "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n", "output": "<answer>me</answer>", "gts": "me", "score": 1}
    report, _ = imported(tmp_path, [row, known], "verl-dump")
    assert (
        report.rejected == 1 and "a chat template that is not read; ChatML, Llama 3, Gemma are ('input' begins with [INST])" in caplog.text
    )


def test_a_result_belongs_to_the_call_of_its_id(tmp_path):
    calls = [{"id": name, "type": "function", "function": {"name": "search", "arguments": {"query": name}}} for name in "ab"]
    results = [{"role": "tool", "tool_call_id": name, "content": name.upper()} for name in "ba"]
    _, [trajectory] = imported(tmp_path, [{"answer": "Herbert", "messages": [ASKED, called(tool_calls=calls), *results, ANSWERED]}])
    assert [(s.query, s.documents) for s in searches(trajectory.messages)] == [("a", "A"), ("b", "B")]


SUM = {"name": "calculator", "arguments": {"expression": "1 + 1"}}
BOTH = {"name": "search", "arguments": {"query": "Dune author"}}
TWO_TOOLS = {
    "hermes": called("".join(f"<tool_call>{json.dumps(each)}</tool_call>" for each in (SUM, BOTH))),
    "tool_calls": called(tool_calls=[{"type": "function", "function": each} for each in (SUM, BOTH)]),
    "tool_calls, flat": called(tool_calls=[SUM, BOTH]),
    "Anthropic": called([{"type": "tool_use", "name": each["name"], "input": each["arguments"]} for each in (SUM, BOTH)]),
    "fenced JSON": called("".join(f"```json\n{json.dumps(each)}\n```\n" for each in (SUM, BOTH))),
    "Qwen's XML": called(
        "<function=calculator><parameter=expression>1 + 1</parameter></function><function=search><parameter=query>Dune author</parameter></function>"
    ),
}


@pytest.mark.parametrize("two", TWO_TOOLS.values(), ids=TWO_TOOLS)
def test_the_result_of_another_tool_is_not_that_of_the_search_after_it(tmp_path, two):
    results = [{"role": "tool", "content": "2"}, {"role": "tool", "content": FOUND}]
    _, [trajectory] = imported(tmp_path, [{"answer": "Herbert", "messages": [ASKED, two, *results, ANSWERED]}])
    assert [(s.query, s.documents) for s in searches(trajectory.messages)] == [("Dune author", FOUND)]


def test_results_of_anthropic_belong_to_the_calls_of_their_ids(tmp_path):
    calls = called([{"type": "tool_use", "id": name, "name": "search", "input": {"query": name}} for name in "ab"])
    found = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": name, "content": name.upper()} for name in "ba"]}
    _, [trajectory] = imported(tmp_path, [{"answer": "Herbert", "messages": [ASKED, calls, found, ANSWERED]}])
    assert [(s.query, s.documents) for s in searches(trajectory.messages)] == [("a", "A"), ("b", "B")]


def test_a_turn_of_the_user_is_no_result_where_tools_carry_them(tmp_path):
    found = {"role": "tool", "content": FOUND}
    now = {"role": "user", "content": "Please answer now."}
    _, [trajectory] = imported(tmp_path, [{"answer": "Herbert", "messages": [ASKED, CALLS["hermes"], now, found, ANSWERED]}])
    assert [s.documents for s in searches(trajectory.messages)] == [FOUND]


@pytest.mark.parametrize(
    "text",
    ["Action: Search[x]\nObservation 1: y\n<answer>Herbert</answer>", "<think>The <result> tag is odd</think><answer>Herbert</answer>"],
)
def test_an_answer_after_an_open_result_is_not_swallowed(tmp_path, text):
    _, [trajectory] = imported(tmp_path, [{"answer": "Herbert", "messages": [ASKED, called(text)]}])
    assert trajectory.prediction == "Herbert" and trajectory.correct


def test_a_call_that_searches_for_nothing_is_no_search():
    call = called(**function({"url": "http://x", "reason": "to read"}, "visit"))
    assert searches(as_turns([ASKED, call, {"role": "tool", "content": FOUND}, ANSWERED])) == []
    thought = {"role": "reasoning", "content": "Hm."}
    assert as_turns([ASKED, thought, ANSWERED, thought])[-1] == thought


@pytest.mark.parametrize("tags", ["search_result", "documents", "observation"])
def test_a_raw_transcript_is_read_with_the_tags_of_other_projects(tmp_path, tags):
    text = f"<search>Dune author</search><{tags}>{FOUND}</{tags}><answer>Herbert</answer>"
    _, [trajectory] = imported(tmp_path, [{"question": "Who?", "answer": "Herbert", "text": text}], "r1-searcher")
    assert [(s.query, s.documents) for s in searches(trajectory.messages)] == [("Dune author", FOUND)]
