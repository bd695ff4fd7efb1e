"""Pages of the report, checked for the order of their tags, and a folder with one run of each kind."""

import json
from html.parser import HTMLParser

from hiexp_verl.io.files import write_jsonl
from hiexp_verl.report import write_report
from tests.support.factories import trajectory
from tests.support.heks import e, hek
from tests.support.runs import arm, row, shown, write_evaluation, write_recipe, write_rollout, write_state, write_training

VOID = {"meta", "br", "img", "link", "path", "circle", "input", "polygon", "rect"}


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


def page(*runs, out=None):
    path = out or runs[0].parent / "report.html"
    write_report(runs, path)
    text = path.read_text(encoding="utf-8")
    Tags(text)
    return text


def episode(text="plain", guided=True, **fields):
    experience = f"\n\n<experience>\n- Look twice. {text}\n</experience>" if guided else ""
    messages = (
        {"role": "system", "content": f"Prompt {text}{experience}"},
        {"role": "user", "content": text},
        {"role": "assistant", "content": f"<think>{text}</think> <search>{text}</search>"},
        {"role": "tool", "content": f'<information>\nDoc 1(Title: "{text}") {text}\n</information>{experience}'},
        {"role": "assistant", "content": f"<answer>{text}</answer>", "tool_calls": [{"function": {"name": text}}]},
    )
    extra = {"arm": "full", "shown": shown("e1-0001"), "searches": 1} if guided else {"searches": 1}
    return trajectory(messages=messages, question=text, answers=(text,), prediction=text, extra=extra, **fields)


def everything(folder, text="plain"):
    """A directory with one of each kind, in which a model (or whoever named the arms) wrote this text wherever it can."""
    entries = e(1, title=text, description=text, kind="pitfall"), e(1, "e2", text, text, children=("e1-0001",))
    version = hek(*entries).save(folder / "hek")
    content_hash = json.loads((version / "header.json").read_text())["content_hash"]
    measured = {"hiexp__alarm__entropy": 1.0, "timing_s__step": 9.0, "timing_s__gen": 4.0}
    write_training(folder / "run", {1: 0.1, 2: 0.4}, {"hiexp__arm": text}, error=text, **measured)
    write_state(folder / "run", 2, content_hash, {"e1-0001": {"episodes": 4, "reward": 1.0}})
    write_evaluation(folder / "eval", [arm("none", 0.5), arm(text, 0.7, 0.2)], [row("none", "q", False), row(text, "q", True)])
    write_rollout(folder / "roll" / "without", [episode(text, guided=False, correct=False)])
    write_rollout(folder / "roll" / "with", [episode(text)], hek=content_hash)
    write_recipe(folder, seconds={text: 1.5}, facts={text: text})
    write_jsonl(folder / "other.jsonl", [{"a": 1}])
    return folder
