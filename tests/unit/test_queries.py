"""Queries ask the same when nearly all of their words are the same, in whatever order."""

from hiexp_verl.text import alike_from_start, content_words, same_query


def test_words_that_only_hold_a_text_together_are_left_out():
    assert content_words("What is the capital of France?") == {"capital", "france"}


def test_order_case_and_function_words_make_no_difference():
    assert same_query("capital of France", "France: the CAPITAL")
    assert not same_query("capital of France", "capital of Spain")  # 1 of 3 words


def test_four_of_five_words_are_the_same_query_and_three_of_four_are_not():
    assert same_query("red green blue white", "red green blue white black")
    assert not same_query("red green blue", "red green blue white")


def test_queries_without_a_word_are_not_the_same():
    assert not same_query("of the", "of the")


def test_only_leading_queries_count():
    assert alike_from_start(["a1", "b1", "c1"], ["A1", "x1", "c1"]) == 1
    assert alike_from_start(["a1"], ["a1", "b1"]) == 1
    assert alike_from_start([], ["a1"]) == 0
