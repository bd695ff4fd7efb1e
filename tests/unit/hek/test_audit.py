"""An audit finds what a HEK knows of a test set, and nothing else."""

import json
from pathlib import Path

import pytest

from hiexp_verl.cli import main
from hiexp_verl.domains.maths.domain import MATHS
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.audit import audit
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.types import Question
from tests.support.derivations import write_maths_hek
from tests.support.heks import ENCODER, e, hek, source

KNOWN = hek(e(1), e(2), e(1, "e2", "Patterns", questions=("q1", "q2")), sources=[source(1, "Who directed Suicide Kings?"), source(2)])


def asked(text: str, *answers: str, id: str = "t1") -> Question:
    return Question(id, text, answers or ("Nobody",))


def test_the_same_question_is_found_under_any_id_with_the_entries_that_rest_on_it():
    found = audit(KNOWN, [asked("  who directed the SUICIDE kings"), asked("How long is the Nile?", id="t2")], ENCODER)
    (overlap,) = found.exact
    assert (overlap.question, overlap.hek_question, overlap.how) == ("t1", "q1", "same text")
    assert overlap.entries == ("e1-0001", "e2-0001")
    assert (found.questions, found.near, found.answers, found.clean) == (2, (), (), False)


def test_a_disjoint_test_set_is_clean_with_and_without_the_encoder():
    questions = [asked("How long is the Nile?"), asked("Where does the Danube end?", "Black Sea", id="t2")]
    for encoder in (ENCODER, None):
        found = audit(KNOWN, questions, encoder)
        assert found.clean
        assert not (found.exact or found.near or found.answers or found.warnings)


def test_an_id_with_another_text_is_a_warning_and_without_text_an_overlap():
    found = audit(KNOWN, [asked("How long is the Nile?", id="q1")], ENCODER)
    assert found.clean
    assert found.warnings == ("1 ids of the test set are other questions in the HEK (the first: 'q1'); give the sets distinct ids",)
    textless = audit(hek(e(1), e(2)), [asked("How long is the Nile?", id="q1")], None)
    assert [(x.how, x.entries) for x in textless.exact] == [("same id", ("e1-0001",))]
    assert textless.warnings == ("the HEK keeps no text of 2 of its questions; these were compared by id only",)


@pytest.mark.parametrize("encoder", [ENCODER, None])
def test_the_same_content_words_in_another_order_are_near(encoder):
    (same,) = audit(KNOWN, [asked("Suicide Kings was directed by whom?")], encoder).near
    assert (same.hek_question, same.how) == ("q1", "same content words")


def test_without_an_encoder_four_of_five_words_in_common_are_near():
    known = hek(e(1), sources=[source(1, "Alpha beta gamma delta?")])
    (near,) = audit(known, [asked("Alpha beta gamma delta epsilon?")], None).near
    assert near.how == "words 0.80"
    assert audit(known, [asked("Alpha beta gamma epsilon?")], None).clean  # 3 of 5
    assert audit(known, [asked("What is it?")], None).clean


def test_answers_in_entries_are_found_as_whole_words():
    known = hek(
        e(1, description="Search for Elio Petri, not for his film."),
        e(2, title="When the answer is the Elio-Petri prize"),
        e(3, description="A petrified forest is no director."),
    )
    found = audit(known, [asked("Who made it?", "Elio Petri", "petri"), asked("Who won?", "elio petri", id="t2")], None)
    assert [(x.answer, x.entry, x.questions) for x in found.answers] == [("elio petri", "e1-0001", ("t1", "t2"))]
    assert not found.clean


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Which is older, Elio Petri or Ed Wood?", "Elio Petri"),  # the question says it
        ("Is it so?", "For"),  # short
        ("What is it?", "Petr"),  # a part of a word
    ],
)
def test_answers_that_give_nothing_away_are_not_found(question, answer):
    assert audit(hek(e(1, description="Search for Elio Petri, not for his film.")), [asked(question, answer)], None).clean


def test_an_ordinary_word_as_an_answer_is_only_a_warning():
    found = audit(hek(e(1, description="Search for the film first.")), [asked("What is it?", "film"), asked("Who?", "Film", id="t2")], None)
    assert found.warnings[-1] == "answers that are ordinary words are in entries (film); not counted"
    assert [x.questions for x in found.answers] == [("t2",)]  # a name in capitals may be one


def test_other_signs_are_another_question():
    known = hek(e(1), sources=[source(1, "What is 25 - 60 + 14?")])
    assert audit(known, [asked("What is 25 - 60 - 14?"), asked("What is 14 - 60 + 25?", id="t2")], None).clean
    assert audit(known, [asked("what is 25 \u2212 60 + 14")], None).exact[0].how == "same text"


def test_another_encoder_is_refused():
    with pytest.raises(HiExpError, match="dimensions"):
        audit(KNOWN, [asked("How long is the Nile?")], HashEncoder(64))


def written(path: Path, *questions: Question) -> str:
    write_jsonl(path, questions)
    return str(path)


def test_the_exit_code_tells_clean_from_overlap_from_error(tmp_path, capsys):
    KNOWN.save(tmp_path / "hek")
    command = ["audit", str(tmp_path / "hek"), "--questions"]
    clean = written(tmp_path / "clean.jsonl", asked("How long is the Nile?"))
    overlap = written(tmp_path / "overlap.jsonl", asked("Who directed Suicide Kings?"), asked("What?", "loudest song", id="t2"))
    assert main([*command, clean]) == 0
    assert capsys.readouterr().out.startswith(
        "1 questions, no overlap: 0 exact, 0 near (cosine of hash:128 >= 0.95, of those with a third of the words in common)"
    )
    assert main([*command, overlap]) == 1
    printed = capsys.readouterr().out
    assert "exact  t1 = q1 (same text; e1-0001, e2-0001): Who directed Suicide Kings?" in printed
    assert "answer 'loudest song' of t2 in e1-0002" in printed
    assert main([*command, overlap, "--json"]) == 1
    value = json.loads(capsys.readouterr().out)
    assert (value["questions"], value["clean"], len(value["exact"]), len(value["answers"])) == (2, False, 1, 1)
    assert main([*command, str(tmp_path / "none.jsonl")]) == 2
    assert main([*command, clean, "--encoder", str(tmp_path / "none")]) == 2


def test_without_its_encoder_the_audit_goes_by_words_and_says_so(tmp_path, capsys):
    KNOWN.save(tmp_path / "hek")
    (tmp_path / "hek" / "ENCODER").write_text("hash:64\n")
    assert main(["audit", str(tmp_path / "hek"), "--questions", written(tmp_path / "q.jsonl", asked("How long is the Nile?"))]) == 0
    assert "share of common words >= 0.8, no encoder" in capsys.readouterr().out


def test_answers_of_mathematics_are_found_in_every_notation_and_small_numbers_are_ordinary():
    known = hek(
        e(1, description="Take half of it, which is 0.5."),
        e(2, description="There are 100 cents in a dollar."),
        e(3, title="What is \\frac{1}{2} of N?", description="It is 1,250 then."),
    )
    questions = [
        asked("What share is left?", r"\frac{1}{2}"),
        asked("How many cents are 3 dollars?", "1250", id="t2"),
        asked("How many percent are all?", "100", id="t3"),
        asked("What is the balance?", "-100", id="t5"),
        asked("Half of 1250 or 1/2 of 1250?", "1250", id="t4"),  # the question says it
    ]
    found = audit(known, questions, None, MATHS)
    assert [(x.answer, x.entry, x.questions) for x in found.answers] == [
        ("1/2", "e1-0001", ("t1",)),
        ("1/2", "e1-0003", ("t1",)),
        ("1250", "e1-0003", ("t2",)),
    ]
    assert found.warnings[1:] == ("answers that are ordinary words are in entries (100, -100); not counted",)


def test_the_command_asks_the_domain_of_the_hek(tmp_path, capsys):
    root = write_maths_hek(tmp_path / "hek", "Try 0.25 of it.")
    write_jsonl(tmp_path / "q.jsonl", [asked("What share is left?", "1/4")])
    assert main(["audit", str(root), "--questions", str(tmp_path / "q.jsonl"), "--encoder", "hash:256"]) == 1
    assert "answer '1/4' of t1 in e1-a" in capsys.readouterr().out
