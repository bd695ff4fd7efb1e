"""Question files of both kinds."""

import json

import pyarrow as pa
import pytest
from pyarrow.parquet import write_table

from hiexp_verl.errors import HiExpError
from hiexp_verl.io.datasets import asked_twice, read_question_file
from hiexp_verl.scoring import em
from hiexp_verl.types import Question


def parquet(path, rows):
    write_table(pa.Table.from_pylist(rows), path)
    return path


def test_search_r1_and_verl_rows_are_questions(tmp_path):
    search_r1 = [{"id": "test_0", "question": "who got the first nobel prize", "golden_answers": ["Röntgen", "Wilhelm Röntgen"]}]
    assert read_question_file(parquet(tmp_path / "a.parquet", search_r1)) == [
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
            "extra_info": {"index": 8, "split": "test"},
        },
    ]
    found = read_question_file(parquet(tmp_path / "b.parquet", verl))
    assert [(q.id, q.question, q.answers, q.meta) for q in found] == [
        ("7", "Who is it?", ("me",), {"split": "test"}),
        ("8", "Who is it?", ("you",), {"split": "test"}),
    ]
    assert asked_twice(found) == [["7", "8"]]
    bare = [{"question": "Who?", "answer": "me"}, {"question": "When?", "answer": "now"}]
    assert [q.id for q in read_question_file(parquet(tmp_path / "c.parquet", bare))] == ["0", "1"]


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
        read_question_file(parquet(tmp_path / "q.parquet", [row]))
    (tmp_path / "q.jsonl").write_text(json.dumps({k: v for k, v in row.items() if k != "golden_answers"}) + "\n")
    with pytest.raises(HiExpError, match=said.removeprefix("row 0: ")):
        read_question_file(tmp_path / "q.jsonl")


def test_files_that_are_no_questions_are_refused(tmp_path):
    (tmp_path / "q.parquet").write_text("no parquet")
    with pytest.raises(HiExpError, match="no parquet file"):
        read_question_file(tmp_path / "q.parquet")
    with pytest.raises(HiExpError, match="does not exist"):
        read_question_file(tmp_path / "none.parquet")
    twice = [{"id": "1", "question": "Who?", "answer": "a"}, {"id": "1", "question": "When?", "answer": "b"}]
    with pytest.raises(HiExpError, match="row 1: the id '1' occurs twice"):
        read_question_file(parquet(tmp_path / "twice.parquet", twice))


def test_answers_in_other_scripts_and_as_numbers_are_scored(tmp_path):
    (tmp_path / "q.jsonl").write_text(
        json.dumps({"id": 1, "question": "谁写的", "answers": ["鲁迅", 1881, 3.5]}, ensure_ascii=False) + "\n"
    )
    (asked,) = read_question_file(tmp_path / "q.jsonl")
    assert asked.answers == ("鲁迅", "1881", "3.5")
    assert (em("鲁迅。", asked.answers), em("1881", asked.answers), em("茅盾", asked.answers)) == (1.0, 1.0, 0.0)
    assert em("ZÜRICH", ("Zürich",)) == 1.0 and em("Москва", ("москва",)) == 1.0


def test_a_column_of_numbers_is_read_as_people_write_them(tmp_path):
    rows = [{"id": "1", "question": "When?", "answer": 1889.0}, {"id": "2", "question": "How long?", "answer": 330.5}]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for path in (parquet(tmp_path / "q.parquet", rows), tmp_path / "q.jsonl"):
        assert [q.answers for q in read_question_file(path)] == [("1889",), ("330.5",)]


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
        found = read_question_file(path)
        assert [q.answers for q in found] == [("Röntgen", "Wilhelm Röntgen"), *[("Röntgen",)] * 3]
        assert all(not q.meta for q in found)
