"""Questions, gold answers and passages are read alike from JSON lines, JSON lists and parquet."""

import json
import time

import numpy as np
import pyarrow as pa
import pytest
from pyarrow.parquet import write_table

from hiexp_verl.errors import HiExpError
from hiexp_verl.io.datasets import passage_of, read_corpus, read_questions, repeated_questions
from hiexp_verl.io.questions import bare_question, gold_answers, is_answerable, question_id_of, question_in, question_of, unwrapped
from hiexp_verl.io.rows import BadRow
from hiexp_verl.scoring import em
from hiexp_verl.types import Passage, Question


def parquet(path, rows):
    write_table(pa.Table.from_pylist(rows), path)
    return path


def test_search_r1_and_verl_rows_are_questions(tmp_path):
    search_r1 = [{"id": "test_0", "question": "who got the first nobel prize", "golden_answers": ["Röntgen", "Wilhelm Röntgen"]}]
    assert read_questions(parquet(tmp_path / "a.parquet", search_r1)) == [
        Question("test_0", "who got the first nobel prize", ("Röntgen", "Wilhelm Röntgen"), {})
    ]
    prompt = [{"role": "system", "content": "s"}, {"role": "user", "content": "Search first. Question: Who is it?\n"}]
    verl = [
        {
            "prompt": prompt,
            "reward_model": {"style": "rule", "ground_truth": {"target": ["me"]}},
            "extra_info": {"index": 7, "split": "test"},
        },
        {
            "prompt": prompt[1:],
            "reward_model": {"style": "rule", "ground_truth": {"target": ["you"]}},
            "extra_info": {"question_id": "8", "index": 7, "split": "test"},
        },
    ]
    found = read_questions(parquet(tmp_path / "b.parquet", verl))
    assert [(q.id, q.question, q.answers, q.meta) for q in found] == [
        (question_id_of("Who is it?"), "Who is it?", ("me",), {"split": "test"}),
        ("8", "Who is it?", ("you",), {"split": "test"}),
    ]
    assert repeated_questions(found) == [[question_id_of("Who is it?"), "8"]]
    bare = [{"question": "Who?", "answer": "me"}, {"question": "When?", "answer": "now"}]
    assert [q.id for q in read_questions(parquet(tmp_path / "c.parquet", bare))] == [question_id_of("Who?"), question_id_of("When?")]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"id": "1", "question": "Who?"}, "row 0: no answer"),
        ({"id": "1", "question": "Who?", "golden_answers": []}, "row 0: no answer"),
        ({"id": "1", "question": "Who?", "answers": [""]}, "row 0: no answer"),
        ({"id": "1", "question": " ", "answers": ["a"]}, "row 0: the question is empty"),
        ({"id": "1", "answers": ["a"]}, r"row 0: no field 'question' \(found \['answers', 'id'\]\)"),
        ({"id": " ", "question": "Who?", "answers": ["a"]}, "row 0: 'id' must be a text or a number"),
        ({"id": "1", "question": "Who?", "answers": [float("nan")]}, "an answer must be a text or a number"),
        ({"id": "1", "question": "Who?", "answers": [{"name": "a"}]}, "an answer must be a text or a number"),
    ],
)
def test_a_faulty_row_is_named(tmp_path, row, said):
    with pytest.raises(HiExpError, match=said):
        read_questions(parquet(tmp_path / "q.parquet", [row]))
    (tmp_path / "q.jsonl").write_text(json.dumps({k: v for k, v in row.items() if k != "golden_answers"}) + "\n")
    with pytest.raises(HiExpError, match=said.removeprefix("row 0: ")):
        read_questions(tmp_path / "q.jsonl")


def test_files_that_are_no_questions_are_refused(tmp_path):
    (tmp_path / "q.parquet").write_text("no parquet")
    with pytest.raises(HiExpError, match="is not a parquet file"):
        read_questions(tmp_path / "q.parquet")
    with pytest.raises(HiExpError, match="does not exist"):
        read_questions(tmp_path / "none.parquet")
    twice = [{"id": "1", "question": "Who?", "answer": "a"}, {"id": "1", "question": "When?", "answer": "b"}]
    with pytest.raises(HiExpError, match="row 1: the id '1' occurs twice"):
        read_questions(parquet(tmp_path / "twice.parquet", twice))


def test_answers_in_other_scripts_and_as_numbers_are_scored(tmp_path):
    (tmp_path / "q.jsonl").write_text(
        json.dumps({"id": 1, "question": "谁写的", "answers": ["鲁迅", 1881, 3.5]}, ensure_ascii=False) + "\n"
    )
    (asked,) = read_questions(tmp_path / "q.jsonl")
    assert asked.answers == ("鲁迅", "1881", "3.5")
    assert (em("鲁迅。", asked.answers), em("1881", asked.answers), em("茅盾", asked.answers)) == (1.0, 1.0, 0.0)
    assert em("ZÜRICH", ("Zürich",)) == 1.0 and em("Москва", ("москва",)) == 1.0


def test_a_column_of_numbers_is_read_as_people_write_them(tmp_path):
    rows = [{"id": "1", "question": "When?", "answer": 1889.0}, {"id": "2", "question": "How long?", "answer": 330.5}]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for path in (parquet(tmp_path / "q.parquet", rows), tmp_path / "q.jsonl"):
        assert [q.answers for q in read_questions(path)] == [("1889",), ("330.5",)]


def test_answers_have_several_names_and_aliases(tmp_path):
    rows = [
        {"id": "1", "question": "Who?", "answer": "Röntgen", "answer_aliases": ["Wilhelm Röntgen", "Röntgen"]},
        {"id": "2", "question": "Who?", "golden_answers": ["Röntgen"], "answer_aliases": []},
        {"id": "3", "question": "Who?", "answers": None, "answer": "Röntgen", "answer_aliases": None},
        {"id": "4", "question": "Who?", "answers": [], "golden_answers": [" "], "answer": "Röntgen"},
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = dict.fromkeys(key for row in rows for key in row)
    for path in (parquet(tmp_path / "q.parquet", [{**columns, **row} for row in rows]), tmp_path / "q.jsonl"):
        found = read_questions(path)
        assert [q.answers for q in found] == [("Röntgen", "Wilhelm Röntgen"), *[("Röntgen",)] * 3]
        assert all(not q.meta for q in found)


ROWS = [
    {"_id": "5a8", "question": "Who?", "answer": "me", "level": "hard"},
    {"question": "When?", "answers": ["1889"], "level": "easy"},
    {"id": None, "question": "Where?", "answer": 7, "level": None},
]


def test_every_kind_of_file_gives_the_same_questions(tmp_path):
    (tmp_path / "q.jsonl").write_text("".join(f"\n{json.dumps(row)}\n" for row in ROWS))
    (tmp_path / "q.json").write_text(json.dumps(ROWS, indent=1))
    parquet(
        tmp_path / "q.parquet",
        [{"_id": None, "id": None, "answers": None, "answer": None, **r, **({"answer": "7"} if "id" in r else {})} for r in ROWS],
    )
    (tmp_path / "renamed.jsonl").write_bytes((tmp_path / "q.parquet").read_bytes())
    for name in ("q.jsonl", "q.json", "q.parquet", "renamed.jsonl"):
        found = read_questions(tmp_path / name)
        assert [(q.id, q.question, q.answers) for q in found] == [
            ("5a8", "Who?", ("me",)),
            (question_id_of("When?"), "When?", ("1889",)),
            (question_id_of("Where?"), "Where?", ("7",)),
        ]
        assert found[0].meta == {"level": "hard"}


def test_rows_of_verl_may_stand_in_json_lines_too(tmp_path):
    row = {
        "data_source": "nq",
        "prompt": [{"role": "user", "content": "Answer the given question. Question: Who is it?\n"}],
        "reward_model": {"style": "rule", "ground_truth": {"target": ["me"]}},
        "extra_info": {"index": 7, "split": "test"},
    }
    (tmp_path / "q.jsonl").write_text(json.dumps(row) + "\n")
    asked = Question(question_id_of("Who is it?"), "Who is it?", ("me",), {"data_source": "nq", "split": "test"})
    assert read_questions(tmp_path / "q.jsonl") == [asked]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"question": "When is it?"}, "the prompt does not hold the row's question"),
        ({"extra_info": {"question": "When is it?"}}, "the prompt does not hold the row's question"),
        ({"answer": "you"}, "reward_model.ground_truth and the row's answers have none in common"),
        ({"question": "who is it", "answers": ["you", "ME."]}, ""),
        ({"answer_aliases": ["you"]}, ""),
    ],
)
def test_columns_that_contradict_those_of_verl_are_refused(tmp_path, columns, said):
    row = {"prompt": [{"role": "user", "content": "Answer. Question: Who is it?"}], "reward_model": {"ground_truth": ["me"]}, **columns}
    path = parquet(tmp_path / "q.parquet", [row])
    if said:
        with pytest.raises(HiExpError, match=said):
            read_questions(path)
    else:
        (asked,) = read_questions(path)
        assert (asked.question, asked.answers) == (row.get("question", "Who is it?"), tuple(row.get("answers", ["me", "you"])))


@pytest.mark.parametrize(
    ("value", "answers"),
    [
        ("Kabul", ("Kabul",)),
        (1889.0, ("1889",)),
        ([" Kabul", "", None, "Kabul", "Kabol "], ("Kabul", "Kabol")),
        ({"target": ["Kabul"]}, ("Kabul",)),
        ({"target": np.array(["Kabul", "Kabol"], dtype=object)}, ("Kabul", "Kabol")),
        (np.array([7]), ("7",)),
        (True, ("yes", "true")),
        ("True", ("True", "yes")),
        ([False], ("no", "false")),
        ({"value": "Kabul", "aliases": ["Kabol"], "normalized_aliases": ["kabul"]}, ("Kabul", "Kabol")),
        ({"text": ["Kabul", "the city"], "answer_start": [1, 9]}, ("Kabul", "the city")),
        ('{"target": ["Kabul"]}', ("Kabul",)),
        ("{'target': ['Kabul', 'Kabol']}", ("Kabul", "Kabol")),
        ("{'target': array(['Kabul'], dtype=object)}", ("Kabul",)),
        ('["Kabul", "Kabol"]', ("Kabul", "Kabol")),
        ("('Kabul', 'Kabol')", ("Kabul", "Kabol")),
        ("{'Kabul', 'Kabol'}", ("Kabol", "Kabul")),
        ("{'target': array(['Kabul'], dtype='<U5')}", ("Kabul",)),
        ('"[\\"Kabul\\"]"', ("Kabul",)),
        ([{"answer": "Kabul", "aliases": ["Kabol"]}], ("Kabul", "Kabol")),
        ("('Round Midnight", ("('Round Midnight",)),  # a title
        ("[0, 1]", ("[0, 1]",)),  # an interval
        ("[1889]", ("[1889]",)),
        ("{1, 2}", ("{1, 2}",)),
    ],
)
def test_gold_answers_are_read_out_of_whatever_holds_them(value, answers):
    assert gold_answers(value) == answers


@pytest.mark.parametrize(
    "value", [None, "", [], "[]", "{}", [" "], {"target": []}, {"name": "Kabul"}, [float("inf")], "['a' 'b']", "{'target': x}", '["a"']
)
def test_what_holds_no_gold_answer_is_refused(value):
    with pytest.raises(BadRow, match="answer"):
        gold_answers(value)


@pytest.mark.parametrize(
    ("prompt", "extra_info", "question"),
    [
        ([{"role": "system", "content": "Search."}, {"role": "user", "content": "Who?"}], {}, "Who?"),
        ([{"role": "user", "content": [{"type": "text", "text": "Use <search>. Question: Who?"}]}], {}, "Who?"),
        ([{"role": "user", "content": "Who?"}], {"question": "Question: Who else?"}, "Question: Who else?"),
        ([{"role": "assistant", "content": "Hm"}], {}, ""),
        ("Who?", {}, ""),
        ([{"role": "user", "content": "Question: Who?\n\nThink in <think>, answer in <answer>."}], {}, "Who?"),
        ([{"role": "user", "content": "Question: Who?\nAnswer in <answer> </answer>, please."}], {}, "Who?"),
        ([{"role": "user", "content": "A talk of a user and an assistant.\nUser: Who?\nAssistant: <think>"}], {}, "Who?"),
        ([{"role": "user", "content": "Search by <search>. Answer in \\boxed{}.\n\nWho wrote it?"}], {}, "Who wrote it?"),
        ([{"role": "user", "content": "Who wrote it?\nGive the answer between <answer> and </answer>."}], {}, "Who wrote it?"),
        ([{"role": "user", "content": "Question: Who?\nAnswer: me\n\nQuestion: Where?\nAnswer:"}], {}, "Where?"),
        ([{"role": "user", "content": "Use <search>.\n**Question**: Who?"}], {}, "Who?"),
        ([{"role": "user", "content": "Question: Two fought. Who won? Use <search>."}], {}, "Two fought. Who won?"),
        ([{"role": "user", "content": "Question: Which?\n\nA) x\nB) y"}], {}, "Which?\n\nA) x\nB) y"),
        ([{"role": "user", "content": "What is 'Dr. Human: The Movie' about?"}], {}, "What is 'Dr. Human: The Movie' about?"),
        ([{"role": "user", "content": "Use <search>.\n### Question\nWho?"}], {}, "Who?"),
        ([{"role": "user", "content": "Who wrote the film The Big Question: A Life?"}], {}, "Who wrote the film The Big Question: A Life?"),
        *(
            ([{"role": "user", "content": wrapper.format("Who wrote Emma?")}], {}, "Who wrote Emma?")
            for wrapper in (
                "Use <search>.\nQ: {}\nA:",
                "<question>{}</question>\nAnswer in <answer>.",
                "The question is in <question> tags.\n<question>\n{}\n</question>",
                "{}\nAnswer in <answer>. Do not repeat the <question>.",
                "[Question] {}",
                "[Question]\n{}\n[/Question]",
                "Solve the following question: {}",
                "Now, solve this problem step by step: {}",
                "Please answer the following question using the search tool: {}",
                "### Input:\n{}\n\n### Output:",
                "Q1: Where?\nA1: here\n**Q2:** {}\n**A2:**",
                "Think first. Please answer this question: {}",
                "Instruction: search.\nInput: {}\nOutput:",
                "Example:\nQ: Where?\nA: here\n\nQ: {}\nA:",
                "Question: Where?\nAnswer: here\n\n{}",
                "Question: Where?\nAnswer: here\n\nNow answer this: {}",
                "Write \\boxed{{it}} in <answer> </answer>. User: {}. Assistant:",
                "Use <search>.\nquestion: {}\nyour answer:",
                "Use <search>.\nMy Question : {}\n\n**Your Answer:**",
                "# Question\n{}\n\n# Rules\n- Use <search>",
                "The initial question is: {}\n\nUse <search>.",
                "<rules>Use <search></rules>\n<user_query>{}</user_query>",
                "在 <think> 中推理\uff0c在 <answer> 中回答。问题\uff1a{}\n答案\uff1a",
                "Suche mit <search>. Frage: {}\nAntwort:",
                "[INST] Use <search>. Question: {} [/INST]",
                "{} /no_think",
                "Question: {}\nLet's think step by step and end with ####.",
                "Answer the following question with the tool. {}",
                "Use the search tool if you need it.\n\n{}",
                "You have access to a search tool. Answer the question briefly.\n{}",
                "{}\n\nKeep your answer short.",
                "Answer concisely. {}",
                "{}\nGive only the final answer, nothing else.",
            )
        ),
        ([{"role": "user", "content": "Who sang Let's think step by step?"}], {}, "Who sang Let's think step by step?"),
        ([{"role": "user", "content": "Which search tool did it buy?"}], {}, "Which search tool did it buy?"),
        ([{"role": "user", "content": "What does the HTML tag <question> mean?"}], {}, "What does the HTML tag <question> mean?"),
        (
            [{"role": "user", "content": "Two men met. One wrote a book.\n\nWho was it?"}],
            {},
            "Two men met. One wrote a book.\n\nWho was it?",
        ),
    ],
)
def test_the_bare_question_of_a_prompt(prompt, extra_info, question):
    assert question_in(prompt, extra_info) == question


@pytest.mark.parametrize(
    ("row", "passage"),
    [
        ({"id": 7, "title": None, "text": "t"}, Passage("7", "", "t")),
        ({"_id": "b", "title": "T", "text": ""}, Passage("b", "T", "")),
        ({"id": "1", "contents": '"Kabul"\nThe "capital".\nOf it.'}, Passage("1", "Kabul", 'The "capital".\nOf it.')),
        ({"id": "1", "contents": '""Heroes" (album)"\nt'}, Passage("1", '"Heroes" (album)', "t")),
        ({"id": "1", "contents": '"\nt'}, Passage("1", '"', "t")),
        ({"id": "1", "contents": '"Heroes" and "Low"\nt'}, Passage("1", '"Heroes" and "Low"', "t")),
        ({"id": "1", "contents": '"The song "Heroes""\nt'}, Passage("1", 'The song "Heroes"', "t")),
        ({"id": "1", "title": '""Heroes" (album)"', "text": "t"}, Passage("1", '"Heroes" (album)', "t")),
        ({"id": "1", "title": '"Heroes" (album)', "text": "t"}, Passage("1", '"Heroes" (album)', "t")),
        ({"id": "1", "title": "T", "text": ["a ", ["b", "c"]]}, Passage("1", "T", "a b c")),
        ({"id": "1", "contents": "One line."}, Passage("1", "", "One line.")),
        ({"id": "1", "contents": "x" * 240 + "\nt"}, Passage("1", "", "x" * 240 + "\nt")),
        ({"id": "1", "content": '"Kabul"\nA city.'}, Passage("1", "Kabul", "A city.")),
        ({"id": "1", "title": "Kabul", "contents": '"Kabul"\nA city.'}, Passage("1", "Kabul", "A city.")),
        ({"id": "1", "title": "Kabul", "contents": "A city.\nOld."}, Passage("1", "Kabul", "A city.\nOld.")),
    ],
)
def test_a_passage_is_read_in_both_notations(row, passage):
    assert passage_of(row) == passage


def test_a_corpus_may_be_of_any_kind_and_a_missing_id_is_made_of_the_content(tmp_path):
    rows = [{"title": "Kabul", "text": "A city."}, {"title": "Kabul", "text": "A province."}]
    (tmp_path / "c.json").write_text(json.dumps(rows))
    one, two = read_corpus(tmp_path / "c.json")
    assert (one.title, one.text) == ("Kabul", "A city.") and one.id != two.id and len(one.id) == 16
    assert read_corpus(parquet(tmp_path / "c.parquet", rows)) == [one, two]
    (tmp_path / "c.jsonl").write_text('{"id": "1", "title": "T"}\n')
    with pytest.raises(HiExpError, match=r"c.jsonl:1: no field 'text' or 'contents'"):
        read_corpus(tmp_path / "c.jsonl")


def test_row_numbers_of_several_sources_are_different_ids(tmp_path):
    rows = [
        {"id": "train_0", "data_source": source, "prompt": [{"role": "user", "content": f"Question: Who is {source}?"}], "answer": "me"}
        for source in ("nq", "hotpotqa")
    ]
    assert [q.id for q in read_questions(parquet(tmp_path / "q.parquet", rows))] == ["nq-train_0", "hotpotqa-train_0"]
    rows = [{**rows[0], "id": "5a8b"}]
    assert [q.id for q in read_questions(parquet(tmp_path / "q.parquet", rows))] == ["5a8b"]


@pytest.mark.parametrize("column", ["dataset", "source", "data_source"])
def test_a_number_that_two_data_sets_share_is_made_two_ids(tmp_path, column):
    rows = [{"id": 1, column: name, "question": f"Who is {name}?", "answer": "me"} for name in ("alpha", "beta")]
    (tmp_path / "q.json").write_text(json.dumps(rows))
    assert [q.id for q in read_questions(tmp_path / "q.json")] == ["alpha-1", "beta-1"]
    assert [q.meta[column] for q in read_questions(tmp_path / "q.json")] == ["alpha", "beta"]


@pytest.mark.parametrize(
    "mark",
    [{"answerable": v} for v in ("false", 0, "No")]
    + [{"is_impossible": v} for v in ("True", 1)]
    + [{"unanswerable": True}, {"is_answerable": False}, {"answers": {"text": [], "answer_start": []}}],
)
def test_a_mark_of_no_answer_may_be_written_as_text_or_number(mark):
    assert not is_answerable(mark)
    with pytest.raises(BadRow, match="without an answer"):
        question_of({"question": "Who?", "answer": "me", **mark})


def test_a_row_with_an_answer_is_kept_and_an_unclear_mark_is_refused():
    assert all(map(is_answerable, ({}, {"answerable": "true"}, {"answerable": 1.0}, {"is_impossible": "false"}, {"is_impossible": None})))
    with pytest.raises(BadRow, match="'answerable' must be true or false"):
        is_answerable({"answerable": "who knows"})


def test_rows_that_say_they_have_no_answer_are_left_out_and_counted(tmp_path, caplog):
    rows = [
        {"id": 1, "question": "When?", "answer": "1920", "answerable": True},
        {"id": 2, "question": "When again?", "answer": "1920", "answerable": False},
        {"id": 3, "question": "Where?", "answers": {"text": [], "answer_start": []}, "is_impossible": True},
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [q.id for q in read_questions(tmp_path / "q.jsonl")] == ["1"]
    assert "2 rows are marked as questions without an answer" in caplog.text
    (tmp_path / "q.jsonl").write_text(json.dumps(rows[1]) + "\n")
    with pytest.raises(HiExpError, match="has no question with an answer"):
        read_questions(tmp_path / "q.jsonl")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"question": "Who?"}'.encode("utf-16"), "q.jsonl:1: the file is UTF-16 or UTF-32; convert it to UTF-8"),
        (b'{"prompt": "Who?", "answer": "me"}', "'prompt' must be a list of messages .found the text 'Who\\?'"),
        (b'{"extra_info": "{}", "question": "Who?", "answer": "me"}', "'extra_info' must be an object"),
        (b"question\tanswer\nWho?\tme\tyou\n", "row 0: more columns than the first line names"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path, content, said):
    (tmp_path / "q.jsonl").write_bytes(content)
    with pytest.raises(HiExpError, match=said):
        read_questions(tmp_path / "q.jsonl")


def test_a_table_with_commas_and_a_list_under_data_are_read(tmp_path):
    (tmp_path / "q.csv").write_text("id,question,answers\n7,\"Who, then?\",\"['me', 'I']\"\n")
    (tmp_path / "q.json").write_text(json.dumps({"data": [{"id": 7, "question": "Who, then?", "answers": ["me", "I"]}]}, indent=1))
    for name in ("q.csv", "q.json"):
        assert read_questions(tmp_path / name) == [Question("7", "Who, then?", ("me", "I"), {})]
    (tmp_path / "q.csv").write_text("who,is it\nme,you,they\n")
    with pytest.raises(HiExpError, match=r"q.csv, row 0: more columns than the first line names"):
        read_questions(tmp_path / "q.csv")


def test_a_table_with_tabs_is_read_with_its_quotes(tmp_path):
    (tmp_path / "psgs.tsv").write_text('id\ttext\ttitle\n1\t"The ""big"" city\ton a river."\tKabul\n2\tA river.\t\n')
    assert read_corpus(tmp_path / "psgs.tsv") == [Passage("1", "Kabul", 'The "big" city\ton a river.'), Passage("2", "", "A river.")]


@pytest.mark.parametrize("text", ["What does the HTML tag <search> do?", "Question: Which?\n\nA) x", "User: The Game is a film by whom?"])
def test_a_question_without_instructions_stays_as_it_is(tmp_path, text):
    (tmp_path / "q.jsonl").write_text(json.dumps({"question": text, "answer": "x"}) + "\n")
    assert read_questions(tmp_path / "q.jsonl")[0].question == text


@pytest.mark.parametrize("words", ["/think ", "[/INST] ", "Question: ", "User: ", "Let's think step by step. ", "answer:\n"])
def test_a_prompt_that_repeats_itself_is_read_in_no_time(words):
    begun = time.perf_counter()
    bare_question(words * 10_000)
    assert time.perf_counter() - begun < 5


def test_a_field_of_a_question_loses_an_instruction_to_box_the_answer():
    assert unwrapped("Who wrote Emma?\n\nPut your final answer within \\boxed{}.") == "Who wrote Emma?"
    assert unwrapped("What does <answer> mean?") == "What does <answer> mean?"


def test_the_number_of_a_choice_is_no_answer():
    row = {"question": "Which?", "choices": ["Sava", "Drava"], "answer": 1}
    with pytest.raises(BadRow, match="'answer' is the number of a choice"):
        question_of(row)
    assert question_of({**row, "choices": [1, 2]}).answers == ("1",)
    assert question_of({**row, "answer": "Drava"}).answers == ("Drava",)


def test_a_row_without_an_id_that_asks_an_earlier_question_is_named(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"question": "Who?", "answer": "me"}\n' * 2)
    with pytest.raises(HiExpError, match=r"q.jsonl:2: has no id, and asks what an earlier row asks; remove it"):
        read_questions(tmp_path / "q.jsonl")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04 ...", "is a zip archive or an .xlsx table; convert it to JSON lines"),
        (b"\x28\xb5\x2f\xfd...", "is compressed by zstd; convert it"),
        (b"- question: Who?\n", "is YAML; convert it"),
        ('{"question": "Who?", "answer": "me"}\n'.encode("utf-16-be"), "the file is UTF-16 or UTF-32"),
        (b"question;answer\nWho?;me\n", r"q.jsonl:1: not JSON .*; give JSON lines, a JSON list, parquet, .tsv or .csv"),
    ],
)
def test_a_file_of_another_format_is_named_with_what_to_do(tmp_path, content, said):
    (tmp_path / "q.jsonl").write_bytes(content)
    with pytest.raises(HiExpError, match=said):
        read_questions(tmp_path / "q.jsonl")
