"""The page shows a HEK without a network, finds, links, and stays harmless whatever a model wrote."""

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiexp_verl.hek import HEK, Header
from hiexp_verl.report import write_report
from hiexp_verl.report.viewer import write_viewer
from hiexp_verl.types import Evidence
from tests.support.browser import CHROMIUM, Browser, browser
from tests.support.factories import entry
from tests.support.report_pages import Tags
from tests.support.shown_hek import ENCODER, FAILURE, hek

EVIL = "</script><script>document.title='evil'</script><!--<script><img src=x onerror=\"document.title='evil'\">"


def bank(*entries, sources=()):
    return HEK(Header(ENCODER.identity), entries, ENCODER.encode_passages([e.title for e in entries]), sources)


def page(tmp_path, content, transcripts=None):
    path = tmp_path / "hek.html"
    assert write_viewer(content, path, transcripts) == path.stat().st_size
    return path


def data_of(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def many(count):
    """E1 that a third of a HEK's E2 summarise, with distinct titles."""
    cases = [entry(f"e1-{n:04d}", title=f"case number{n:04d}", findings=(f"f{n % 3}",)) for n in range(count)]
    patterns = [
        entry(f"e2-{n:04d}", "e2", title=f"pattern {n}", kind="pitfall", children=tuple(c.id for c in cases[3 * n : 3 * n + 3]))
        for n in range(count // 3)
    ]
    return bank(*cases, *patterns)


# ---- the file --------------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_from_outside(tmp_path):
    text = page(tmp_path, hek()).read_text(encoding="utf-8")
    assert not re.search(r"(?:src|href)=\"|@import|url\(|https?:|fetch\(|innerHTML|eval\(", text)
    assert "default-src 'none'" in text
    assert "unsafe" not in text


def test_no_text_can_end_the_data(tmp_path):
    content = bank(entry(title=EVIL, description=EVIL, tags=(EVIL,), bridges=(EVIL,)))
    path = page(tmp_path, content)
    tags = Tags(path.read_text(encoding="utf-8"))
    assert tags.seen.count("script") == 2
    assert "img" not in tags.seen
    assert data_of(path)["entries"][0]["title"] == EVIL


@settings(deadline=None)
@given(st.text(min_size=1).filter(str.strip))
def test_any_text_comes_back_as_it_was(tmp_path_factory, text):
    data = data_of(page(tmp_path_factory.mktemp("viewer"), bank(entry(title=text, tags=(text,)))))
    assert data["entries"][0]["title"] == data["tags"][0] == text.encode("utf-8", "replace").decode()


def test_the_same_hek_gives_the_same_page(tmp_path):
    assert page(tmp_path / "a", hek()).read_bytes() == page(tmp_path / "b", hek()).read_bytes()


def test_texts_that_recur_stand_once(tmp_path):
    data = data_of(page(tmp_path, hek()))
    assert data["questions"] == [["q1", "What is the capital of the country whose highest point is Noshak?"]]
    assert [source[1:3] for source in data["sources"]] == [[0, 0], [0, 0]]
    assert data["entries"][0]["comparisons"] == [[1, 0, 1]]  # q1#1 is the second source, and they part at the second step
    assert data["entries"][2]["children"] == [0, 1]


def test_viewer_and_report_have_the_same_colours(tmp_path):
    hek().save(tmp_path / "hek")
    write_report([tmp_path / "hek"], tmp_path / "report.html")
    write_viewer(hek(), tmp_path / "viewer.html")
    colours = [re.findall(r"--(\w+): (#\w+);", (tmp_path / name).read_text()) for name in ("report.html", "viewer.html")]
    assert colours[0] == colours[1] != []


# ---- in a browser ----------------------------------------------------------------------------------------------------

in_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


@pytest.fixture(scope="module")
def tab():
    with browser() as running:
        yield running


def texts(tab: Browser, selector: str) -> list[str]:
    return tab.run(f"[...document.querySelectorAll({json.dumps(selector)})].map(element => element.innerText)")


def settle(tab: Browser) -> None:
    tab.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def choose(tab: Browser, filter: str, label: str) -> None:
    """Choose the option whose text starts with the label."""
    found = f"[...document.getElementById('{filter}').options].find(o => o.text.startsWith({json.dumps(label)})).value"
    tab.run(f"document.getElementById('{filter}').value = {found}")
    tab.run("document.getElementById('filters').dispatchEvent(new Event('input'))")
    settle(tab)


@in_browser
def test_an_entry_is_shown_with_everything_about_it(tmp_path, tab):
    tab.open(page(tmp_path, hek(), {"q1#1": FAILURE}).as_uri() + "#e1-a")
    assert texts(tab, "#entry h2") == ["capital of a country"]
    assert texts(tab, "#entry h3") == ["Parents (1)", "Sources side by side (1)", "Evidence (1)"]
    assert texts(tab, "#entry dd") == ["bridge:peak", "merged 3", "1: q1"]
    assert texts(tab, "thead th") == ["", "✗ failure\nq1#1, test", "✓ success\nq1#0, test"]
    assert texts(tab, "tr.differs > *") == ["▶ 2", "answer\nParis", "search\ncapital of Afghanistan"]
    assert texts(tab, "tbody tr:last-child > *") == ["3", "", "answer\nKabul"]
    assert texts(tab, "mark") == ["Afghanistan"]
    assert tab.faults() == []


@in_browser
def test_links_lead_to_parents_and_children_and_back(tmp_path, tab):
    tab.open(page(tmp_path, hek()).as_uri() + "#e1-a")
    tab.run("document.querySelector('#entry ul a[href=\"#e2-a\"]').click()")
    settle(tab)
    assert texts(tab, "#entry h2") == ["a pattern"]
    assert texts(tab, "#entry ul a") == ["e1-a", "e1-b"]
    tab.run("new Promise(done => { addEventListener('hashchange', done); history.back(); })")
    assert texts(tab, "#entry h2") == ["capital of a country"]
    tab.run("location.hash = '#gone%'")
    settle(tab)
    assert "no entry “gone%”" in texts(tab, "#entry")[0]


@in_browser
def test_what_a_model_wrote_stays_text(tmp_path, tab):
    evil = replace(entry(title=EVIL, description=EVIL, findings=(EVIL,), bridges=(EVIL,), counters={EVIL: 1}))
    evil = replace(evil, id=EVIL, evidence=(Evidence(EVIL, 0, 0, 1, EVIL, EVIL),), sources=(EVIL,), questions=(EVIL,))
    tab.open(page(tmp_path, bank(evil)).as_uri())
    tab.run("document.querySelector('.row').click()")
    settle(tab)
    assert texts(tab, "#entry h2") == [EVIL]
    assert tab.run("document.images.length + document.scripts.length") == 2
    assert tab.run("document.title") == f"{EVIL} {EVIL}"
    assert tab.faults() == []


@in_browser
def test_preconditions_are_beside_the_entry(tmp_path, tab):
    tab.open(page(tmp_path, bank(replace(entry(), when=("search>=2", "not repeated")))).as_uri())
    tab.run("document.querySelector('.row').click()")
    settle(tab)
    assert "shown only where" in texts(tab, "#entry")[0] and "search>=2, not repeated" in texts(tab, "#entry")[0]


@in_browser
def test_the_policy_refuses_a_script_that_gets_in_all_the_same(tmp_path, tab):
    tab.open(page(tmp_path, hek()).as_uri())
    tab.run("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = true'}))")
    tab.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = true\">')")
    settle(tab)
    assert tab.run("window.ran") is None
    assert tab.faults()


@in_browser
def test_search_takes_all_words_and_filters_narrow_further(tmp_path, tab):
    tab.open(page(tmp_path, many(30)).as_uri())
    assert texts(tab, "#count") == ["40 entries"]
    tab.press("/", *"NUMBER0007 case")
    settle(tab)
    assert texts(tab, "#count") == ["1 of 40 entries"]
    assert [line.split("\n")[-2] for line in texts(tab, ".row")] == ["pattern 2", "case number0007"]  # under its parent
    tab.run("document.getElementById('clear').click()")
    choose(tab, "finding", "f1 (10)")
    assert texts(tab, "#count") == ["10 of 40 entries"]
    choose(tab, "kind", "pitfall")
    assert texts(tab, "#count") == ["0 of 40 entries"]
    assert "Nothing matches" in texts(tab, "#list")[0]
    choose(tab, "finding", "all")
    assert texts(tab, "#count") == ["10 of 40 entries"]
    choose(tab, "level", "E1")
    assert texts(tab, "#count") == ["0 of 40 entries"]
    assert tab.run("document.getElementById('shape').parentElement.hidden")  # no entry has such a tag


@in_browser
def test_keys_walk_the_tree(tmp_path, tab):
    tab.open(page(tmp_path, many(30)).as_uri())
    tab.run("document.getElementById('list').focus()")
    active = "document.getElementById(document.getElementById('list').getAttribute('aria-activedescendant'))"
    tab.press("ArrowDown", "ArrowRight", "ArrowRight")
    assert (tab.run(f"{active}.title"), tab.run(f"{active}.ariaLevel")) == ("case number0003", "2")
    tab.press("Enter")
    settle(tab)
    assert texts(tab, "#entry h2") == ["case number0003"]
    tab.press("ArrowLeft", "ArrowLeft")
    assert (tab.run(f"{active}.title"), tab.run(f"{active}.ariaExpanded")) == ("pattern 1", "false")
    tab.press("End")
    assert tab.run(f"{active}.title") == "pattern 9"
    tab.press("PageUp", "PageUp", "PageUp", "ArrowDown", "ArrowUp")
    assert tab.run(f"{active}.title") == "pattern 0"
    tab.press("PageDown", "Home", "ArrowUp")
    assert tab.run(f"{active}.title") == "pattern 0"


@in_browser
def test_only_visible_rows_exist(tmp_path, tab):
    tab.open(page(tmp_path, many(3000)).as_uri())
    choose(tab, "view", "list")
    assert texts(tab, "#count") == ["4,000 entries"]
    assert 10 < len(texts(tab, ".row")) < 60
    tab.run("document.getElementById('list').scrollTop = 1e9")
    settle(tab)
    assert "case number2999" in texts(tab, ".row")[-1]
    assert len(texts(tab, ".row")) < 60


@in_browser
def test_a_long_part_is_written_in_steps(tmp_path, tab):
    cases = [entry(f"e1-{n:04d}", title=f"case {n}") for n in range(60)]
    parent = entry("e2-a", "e2", children=tuple(case.id for case in cases))
    tab.open(page(tmp_path, bank(*cases, parent)).as_uri() + "#e2-a")
    shown = "document.querySelectorAll('#entry li').length"
    button = "[...document.querySelectorAll('#entry button:not(.back)')].find(b => !b.hidden)"
    assert (tab.run(shown), tab.run(f"{button}.textContent")) == (25, "Show more (35 left)")
    tab.run(f"{button}.click()")
    tab.run(f"{button}.click()")
    assert (tab.run(shown), tab.run(f"{button} === undefined")) == (60, True)


@in_browser
@pytest.mark.parametrize(("width", "beside"), [(1280, True), (390, False)])
def test_the_page_fits_a_screen_and_a_phone(tmp_path, tab, width, beside):
    long = bank(entry(title="word" * 60, description="x" * 500, findings=("y" * 80,)), *many(30).entries[1:3])
    tab.open(page(tmp_path, long).as_uri() + "#e1-a", width=width)
    assert tab.run("document.documentElement.scrollWidth") <= width
    assert tab.run("entry.getBoundingClientRect().left > list.getBoundingClientRect().right") is beside


@in_browser
def test_every_control_has_a_name(tmp_path, tab):
    tab.open(page(tmp_path, hek()).as_uri() + "#e1-a")
    tab.call("Accessibility.enable")
    nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "combobox", "searchbox", "tree", "treeitem", "link", "table"}
    found = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if n.get("role", {}).get("value") in roles]
    assert {role for role, _ in found} == roles
    assert [role for role, name in found if not name.strip()] == []
