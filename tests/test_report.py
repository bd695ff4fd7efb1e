"""The page is complete, harmless whatever a model wrote, and holds together with nothing to show."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexp_verl.encoder import HashEncoder
from hiexp_verl.hek import HEK, Header
from hiexp_verl.report import MAX_CHILDREN, ReportData, _number, _percent, _ticks, count_uses, write_report
from tests.factories import entry, trajectory

EVIL = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'
VOID = {"meta", "br", "img", "link", "path", "circle", "input"}


class Tags(HTMLParser):
    """Collect tags and attributes; fail on one that is closed out of order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.seen, self.attributes = [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def hek(*entries):
    encoder = HashEncoder()
    return HEK(Header(encoder.identity, distiller="rules"), entries, encoder.encode_passages([e.title for e in entries]))


def page(tmp_path, run):
    path = tmp_path / "report.html"
    write_report(run, path)
    text = path.read_text(encoding="utf-8")
    Tags(text)
    return text


def full(text="plain"):
    messages = (
        {"role": "system", "content": f"Prompt {text}\n\n<experience>\n- Look twice. {text}\n</experience>"},
        {"role": "user", "content": text},
        {"role": "assistant", "content": f"<think>{text}</think> <search>{text}</search>"},
        {
            "role": "tool",
            "content": f'<information>\nDoc 1(Title: "T") {text}\n</information>\n<experience>\n- Step lesson.\n</experience>',
        },
        {"role": "assistant", "content": f"<answer>{text}</answer>"},
        {"role": text, "content": [{"type": "text", "text": text}]},
    )
    shown = [{"entry": "e1-a", "level": "e1", "score": 0.9, "place": "step", "tokens": 5}]
    episode = trajectory(question=text, prediction=text, answers=(text,), messages=messages, extra={"shown": shown, "label": text})
    entries = (
        entry("e1-a", title=text, description=text),
        entry("e2-a", "e2", text, text, children=("e1-a",)),
        entry("e3-a", "e3", text, text, children=("e2-a",)),
    )
    return ReportData(
        title=text,
        facts={text: text},
        rates={text: 0.25},
        stages=[(text, 3.0)],
        curves={text: {text: [(0, 0.1), (1, 0.4)], "other": [(0, 0.2)]}},
        table=[{text: text, "f1": 0.5}, {text: "b", "f1": float("nan")}],
        hek=hek(*entries),
        uses=count_uses([episode]),
        episodes=[episode],
    )


def test_what_a_model_wrote_cannot_become_markup(tmp_path):
    text = page(tmp_path, full(EVIL))
    tags = Tags(text)
    assert "script" not in tags.seen
    assert "img" not in tags.seen
    assert not [name for name, _ in tags.attributes if name.startswith("on")]
    assert "&lt;script&gt;" in text


def test_the_page_needs_nothing_from_outside(tmp_path):
    text = page(tmp_path, full())
    assert not re.search(r"(?:src|href)=|@import|url\(", text)
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


def test_every_part_is_on_the_page(tmp_path):
    text = page(tmp_path, full())
    for heading in ("What was run", "Comparison", "Curves", "Time", "Experience (HEK)", "Episodes"):
        assert f"<h2>{heading}</h2>" in text
    assert text.count('<div class="exp">') == 2  # in the system prompt and after the documents
    assert "1 documents, " in text
    assert "shown 1&times;" in text
    assert "25%" in text
    assert "n/a" in text
    tree = text[text.index('tree">') :]
    assert tree.index("E3") < tree.index("E2") < tree.index("E1")


def test_experience_that_the_model_claims_itself_is_not_marked(tmp_path):
    message = {"role": "assistant", "content": "<experience>mine</experience>"}
    assert '<div class="exp">' not in page(tmp_path, ReportData("t", episodes=[trajectory(messages=(message,))]))


def test_an_empty_run_is_a_page_with_its_title(tmp_path):
    text = page(tmp_path, ReportData("Nothing"))
    assert "<h1>Nothing</h1>" in text
    assert "<section>" not in text


def test_a_big_hek_is_cut_and_says_so(tmp_path):
    text = page(tmp_path, ReportData("t", hek=hek(*(entry(f"e1-{i:03}") for i in range(MAX_CHILDREN + 3)))))
    assert "and 3 more" in text
    assert text.count('class="leaf"') == MAX_CHILDREN


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 1.0, [0, 0.5, 1]), (0.11, 0.39, [0.1, 0.2, 0.3, 0.4]), (3, 3, None), (0, 0, None), (-1e9, 1e9, None), (1e-9, 2e-9, None)],
)
def test_ticks_are_few_round_and_span_the_data(low, high, expected):
    ticks = _ticks(low, high)
    assert ticks[0] <= low <= high <= ticks[-1]
    assert 2 <= len(ticks) <= 7
    assert expected is None or ticks == pytest.approx(expected)


@given(st.lists(st.tuples(st.integers(0, 10_000), st.floats(width=32)), max_size=20))
def test_any_curve_can_be_drawn(tmp_path_factory, points):
    text = page(tmp_path_factory.mktemp("report"), ReportData("t", curves={"reward": {"run": points}}))
    assert "nan" not in text.split("</style>")[1]


def test_shares_near_the_ends_are_not_rounded_to_them():
    assert [_percent(v) for v in (0.0, 0.004, 0.414, 0.996, 1.0, float("nan"))] == ["0%", "0.4%", "41%", "99.6%", "100%", "n/a"]


def test_numbers_are_short():
    assert [_number(v) for v in (0.123456, 3, 12.0, 0.0, 1e-5, 1e7, float("inf"), "x")] == [
        "0.123",
        "3",
        "12",
        "0",
        "1e-05",
        "1e+07",
        "n/a",
        "x",
    ]
