# ruff: noqa: RUF001
"""Search, same questions, masking and answers in entries work in scripts without spaces or capitals, or say that they do not."""

import pytest

from hiexp_verl.hek.same_question import SameQuestions
from hiexp_verl.masking import Masker, knows_names, redact
from hiexp_verl.search.bm25 import BM25Search
from hiexp_verl.text import main_words, same_query, spaced
from hiexp_verl.types import Passage

CORPORA = {  # the passage that says it, one that does not, and the question
    "Chinese": ("萨格勒布位于萨瓦河畔。", "东京是日本的首都。", "哪条河流经萨格勒布?"),
    "Japanese": ("ザグレブはサヴァ川のほとりにあります。", "東京は日本の首都です。", "ザグレブを流れる川は何ですか?"),
    "Thai": ("ซาเกร็บตั้งอยู่ริมแม่น้ำซาวา", "โตเกียวเป็นเมืองหลวงของญี่ปุ่น", "แม่น้ำอะไรไหลผ่านซาเกร็บ"),
    "Korean": ("자그레브 는 사바 강에 있다.", "도쿄 는 일본의 수도이다.", "자그레브 를 흐르는 강은?"),
    "Hindi": ("ज़ाग्रेब सावा नदी पर है।", "टोक्यो जापान की राजधानी है।", "ज़ाग्रेब से कौन सी नदी बहती है?"),
    "Arabic": ("تقع زغرب على نهر سافا.", "طوكيو عاصمة اليابان.", "أي نهر يمر عبر زغرب؟"),
    "Arabic with vowel signs": ("تقع زغرب على نهر سافا.", "طوكيو عاصمة اليابان.", "أَيُّ نَهْر يَمُرُّ عَبْرَ زَغْرَب؟"),
    "Persian": ("زاگرب کنار رود ساوا است.", "توکیو پایتخت ژاپن است.", "کدام رود از زاگرب می‌گذرد؟"),
    "Tibetan": ("ཟ་གྷ་རེབ་ནི་ས་བ་གཙང་པོའི་འགྲམ་དུ་ཡོད།", "ཊོ་ཀྱོ།", "ཟ་གྷ་རེབ་གང་ན་ཡོད།"),
    "Javanese": ("ꦗꦺꦴꦒ꧀ꦗꦏꦂꦠꦲꦤ", "ꦥꦫꦶꦱ꧀", "ꦗꦺꦴꦒ꧀ꦗꦏꦂꦠ"),
    "Turkish": ("İstanbul Boğaz'dadır.", "Ankara başkenttir.", "istanbul nerede?"),
    "Russian": ("Загреб стоит на реке Сава.", "Токио — столица Японии.", "Какая река течёт через Загреб?"),
    "Croatian": ("Zagreb leži na Savi.", "Tokio je glavni grad Japana.", "Koja rijeka teče kroz Zágreb?"),
}


@pytest.mark.parametrize(("right", "other", "question"), CORPORA.values(), ids=CORPORA)
def test_bm25_finds_the_passage_that_says_it(right, other, question):
    engine = BM25Search([Passage("other", "", other), Passage("right", "", right)])
    assert [passage.id for passage, _ in engine.search([question], 1)[0]] == ["right"]


@pytest.mark.parametrize(
    ("right", "other", "query"),
    [
        ("부산은 큰 도시이다.", "대구에는 사과가 많다.", "부산의 인구를"),
        ("이 섬은 작다.", "그 산이 높다.", "섬을"),
        ("那条大河很长。", "那座山很高。", "河"),
        ("古代の城が残る。", "新しい駅がある。", "城"),
        ("كان علي هنا", "كان حسن هناك", "علی"),
        ("مدرسة كبيرة", "بيت صغير", "مدرسه"),
    ],
)
def test_bm25_finds_words_with_other_particles_of_another_keyboard_and_of_one_character(right, other, query):
    engine = BM25Search([Passage("other", "", other), Passage("right", "", right)])
    assert [passage.id for passage, _ in engine.search([query], 2)[0]] == ["right"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("哪条河流经萨格勒布?", "哪一条河流经萨格勒布"),
        ("ザグレブを流れる川は何ですか?", "ザグレブを流れる川は何か"),
        ("โตเกียวเป็นเมืองหลวงของประเทศอะไร", "โตเกียวเป็นเมืองหลวงประเทศอะไร"),
    ],
)
def test_a_question_in_nearly_the_same_words_is_known_in_a_script_without_spaces(one, other):
    words, others = main_words(one), main_words(other)
    assert len(words & others) / len(words | others) > 0.5
    assert not SameQuestions({"1": one}).find(["谁写了《红楼梦》?"])[0]


def test_a_turkish_capital_is_its_small_letter():
    assert main_words("İstanbul nerede?") == main_words("istanbul nerede?") == {"istanbul", "nerede"}


def test_pairs_of_characters_stand_for_words():
    assert spaced("北京大学 is old").split() == ["北京", "京大", "大学", "is", "old"]
    assert spaced("河").split() == ["河"] and spaced("river") == "river"
    assert same_query("부산의 인구를 찾기", "부산 인구를 찾기")
    assert same_query("萨格勒布的河流", "萨格勒布的河流。") and not same_query("萨格勒布的河流", "东京的河流")


def test_an_answer_in_a_sentence_without_spaces_is_redacted():
    assert redact("先查萨瓦河再回答", ["萨瓦河"], "哪条河?") == "先查the answer再回答"
    assert redact("The Savas are many.", ["Sava"], "Which?") == "The Savas are many."


def test_names_in_quotation_marks_are_masked_and_other_words_stay():
    question = "谁写了《红楼梦》?"
    assert Masker(question).mask(question) == "谁写了X?"
    assert Masker("哪条河流经萨格勒布?").mask("哪条河流经萨格勒布?") == "哪条河流经萨格勒布?"
    assert not knows_names(question) and knows_names("Кто написал?")
    assert Masker("ist Österreich größer?").names("ist Österreich größer?") == ["Österreich"]
