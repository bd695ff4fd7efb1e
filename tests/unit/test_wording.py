"""What a question asks for is read from its wording, whatever politeness is around it."""

import pytest

from hiexp_verl.masking import Masker, kind_of, name_of
from hiexp_verl.wording import asked_for, is_english, plain, shape_of


@pytest.mark.parametrize(
    ("question", "noun"),
    [
        ("Which river flows through Zagreb?", "river"),
        ("What country borders Chad?", "country"),
        ("Which mountain range separates the two countries?", "mountain range"),
        ("Which language belongs to this family?", "language"),
        ("Which sports did he play?", "sports"),
        ("Which literary works did Orwell write?", "literary works"),
        ("Which literary works by Orwell were banned?", "literary works"),
        ("What are the literary works by Orwell?", "literary works"),
        ("Which actor stars in Dune?", "actor"),
        ("What is the river flowing through Zagreb?", "river"),
        ("Which peaks lie in Nepal?", "peaks"),
        ("Which road leads to Rome?", "road"),
        ("Which singer appears in the film that was shot in Chad?", "singer"),
        ("What's the capital of Chad?", "capital"),
        ("Who's the author of Dune?", "person"),
        ("Can you tell me which river flows through Zagreb?", "river"),
        ("Please answer: when was Dune written?", "date"),
        ("I want to know where Chad lies.", "place"),
        ("Hi! Could you please tell me how many lakes Chad has?", "number"),
    ],
)
def test_what_is_asked_for_is_read_from_the_wording(question, noun):
    assert asked_for(Masker(question).mask(question)) == noun


@pytest.mark.parametrize(
    "before",
    [
        *(
            "Would you mind telling me ",
            "Just tell me: ",
            "Let me ask: ",
            "It would be great to know ",
            "Please answer: ",
            "I want to know ",
            "Can you tell me ",
            "Question: ",
            "Hello, could you tell us ",
        ),
        *("Quick question: ", "Quick, ", "Hey there, ", "Hey - ", "May I ask ", "Could I please know ", "Good morning! ", "Trivia: "),
        *(
            "Thanks. ",
            "Just wondering ",
            "I was wondering ",
            "Do you happen to know ",
            "Another question - ",
            "Exactly ",
            "Excuse me, ",
            "Sorry, ",
            "My question is: ",
            "Remind me ",
            "Any idea ",
            "Quick one: ",
            "Help me find out ",
            "I'm trying to remember ",
            "I don't know ",
        ),
    ],
)
def test_politeness_changes_neither_kind_nor_name_nor_shape(before):
    question = before + "which river flows through Zagreb?"
    assert (kind_of(question), name_of(question), shape_of(question)) == ("Which river flows through ...?", "Zagreb", "direct")
    assert Masker(question).names(question) == ["Zagreb"]
    assert Masker(question).mask(question) == "Which river flows through X?"


@pytest.mark.parametrize("word", ["What's", "Who's", "Where's", "What\u2019s", "Why's", "Who'd", "Who're", "What\u2019re"])
def test_a_question_word_is_no_name(word):
    assert Masker(f"{word} the home of Ana Horvat?").names(f"{word} the home of Ana Horvat?") == ["Ana Horvat"]


@pytest.mark.parametrize("start", ["During the war, ", "According to ", "Besides ", "Identify "])
def test_a_word_that_starts_a_sentence_is_no_name(start):
    assert Masker(f"{start}Dune which river is it?").names(f"{start}Dune which river is it?") == ["Dune"]


def test_a_note_is_no_name():
    assert plain("Who directed Suicide Kings (1979 Film)?") == "Who directed Suicide Kings (1979 film)?"
    assert kind_of("Who directed Suicide Kings (1979 Film)?") == "Who directed ...?" == kind_of("Who directed Dune (1984 film)?")
    assert kind_of("Who wrote Hurt (Johnny Cash Song)?") == "Who wrote ...?"
    assert plain("Did the Kings (United States) win?") == "Did the Kings (United States) win?"


@pytest.mark.parametrize(
    "question",
    [
        *("Please Please Me is an album by whom?", "Tell Me is a song by whom?", "Can You Tell Me is a song by whom?"),
        *(
            "Hey Jude is a song by whom?",
            "Hello is a song by whom?",
            "Quick Gun is a film by whom?",
            "Yes is a band from where?",
            "The Big Question: who wrote it?",
        ),
    ],
)
def test_a_name_that_looks_like_politeness_stays(question):
    assert plain(question) == question


@pytest.mark.parametrize(
    ("question", "english"),
    [
        *((each, True) for each in ("Who wrote Emma?", "Could a llama fly?", "Name the capital of Chad", "Are both by Orwell?")),
        *(
            (each, False)
            for each in (
                "Wer schrieb Faust?",
                "Qui a \u00e9crit Candide?",
                "\u041a\u0442\u043e \u044d\u0442\u043e?",
                "Ai l\u00e0 t\u00e1c gi\u1ea3?",
            )
        ),
    ],
)
def test_english_is_known_by_its_common_words(question, english):
    assert is_english(question) == english
