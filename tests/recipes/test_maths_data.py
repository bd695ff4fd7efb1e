"""Questions of mathematics: answers that can be checked, splits that share nothing, gold answers that score."""

import gzip
import json
import re

import pytest

from hiexp_verl.domains.maths.arithmetic import calculations, evaluate
from hiexp_verl.domains.maths.scoring import equal, score_text
from hiexp_verl.domains.maths.verifier import Verifier
from hiexp_verl.errors import HiExpError
from hiexp_verl.io.datasets import read_questions
from hiexp_verl.io.files import cache_dir
from recipes.demo_data.assets import ASSETS, is_complete
from recipes.demo_data.maths.procedural import FAMILIES, SIZES, problems_of
from recipes.demo_data.maths.sets import read_gsm8k, read_math500, write_maths_sets


def write_docs(folder, *docs):
    text = "".join(json.dumps({"doc": doc}) + "\n" for doc in docs)
    (folder / "requests.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_every_generated_problem_has_the_answer_of_its_calculation(family):
    for question in problems_of(family):
        (answer,) = question.answers
        assert evaluate(question.meta["expression"]) == int(answer)
        made = calculations(question.meta["solution"])
        assert made and all(each.is_right for each in made)
        assert score_text(question.meta["solution"], question.answers).reward == 1.0


@pytest.mark.parametrize("family", FAMILIES)
def test_splits_share_no_problem_and_no_numbers(family):
    questions = problems_of(family)
    assert {split: sum(q.meta["split"] == split for q in questions) for split in SIZES} == SIZES
    assert len({q.id for q in questions}) == len(questions)
    by_split = [
        {(q.meta["expression"], re.sub(r"\W+[A-Z]\w+", "", q.question)) for q in questions if q.meta["split"] == split} for split in SIZES
    ]
    assert not by_split[0] & by_split[1] and not by_split[0] & by_split[2] and not by_split[1] & by_split[2]
    assert problems_of(family) == questions


def test_a_word_problem_may_have_a_number_that_is_not_needed():
    unneeded = [q for q in problems_of("word_problem") if "years old" in q.question]
    assert len(unneeded) > 200


def test_gsm8k_rows_are_read_without_their_notes(tmp_path):
    folder = write_docs(tmp_path, {"question": " How many? ", "answer": "2*3=<<2*3=6>>6.\n#### 1,006"})
    (question,) = read_gsm8k(folder)
    assert (question.id, question.question, question.answers) == ("gsm8k-0000", "How many?", ("1,006",))
    assert question.meta["solution"] == "2*3=6."


def test_math500_answers_are_those_of_the_solutions(tmp_path):
    (question,) = read_math500(write_docs(tmp_path, {"problem": "P", "solution": r"So \boxed{\cot x}.", "answer": r"\cotx", "level": 2}))
    assert question.answers == (r"\cot x",)
    with pytest.raises(HiExpError, match="have no boxed answer, the first is math500-000"):
        read_math500(write_docs(tmp_path, {"problem": "P", "solution": "So.", "level": 2}))


@pytest.mark.parametrize("content", [b"", b"not gzip", *(gzip.compress(text, mtime=0) for text in (b"{}\n", b'{"doc": {}}\n', b"\xff\n"))])
def test_another_file_is_an_error(tmp_path, content):
    (tmp_path / "requests.jsonl.gz").write_bytes(content)
    if not content:
        (tmp_path / "requests.jsonl.gz").unlink()
    with pytest.raises(HiExpError, match="is not the file of questions"):
        read_gsm8k(tmp_path)


@pytest.mark.assets
def test_every_gold_answer_of_the_real_sets_scores_one(tmp_path):
    pytest.importorskip("math_verify")
    if not all(is_complete(cache_dir() / name, ASSETS[name]) for name in ("gsm8k", "math500")):
        pytest.skip("gsm8k and math500 are not in the cache")
    counts = write_maths_sets(None, tmp_path)
    assert counts["gsm8k/train.jsonl"] == 660 and counts["gsm8k/test.jsonl"] == 300 and counts["gsm8k/val.jsonl"] == 359
    assert counts["math500/train.jsonl"] == counts["math500/test.jsonl"] == 250
    with Verifier() as verifier:
        for name in counts:
            for question in read_questions(tmp_path / name):
                (answer,) = question.answers
                # written otherwise, so that more than the text is compared
                assert equal(rf"$ {answer.replace(chr(92) + 'frac', chr(92) + 'dfrac')} $.", answer, verifier), question.id
    assert verifier.counts["timeouts"] == 0
