"""Whatever a command line names, the answer is one line; nothing of a HEK or an address reaches the terminal as it is."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from hiexp_verl.cli import main
from hiexp_verl.errors import HiExpError
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.search import SearchFailed
from hiexp_verl.search.http import HttpSearch
from hiexp_verl.text import without_credentials
from tests.support.factories import trajectory
from tests.support.paths import ROOT
from tests.support.stored_hek import entry, hek

LONG = "x" * 300
BIG = "9" * 400


@pytest.fixture
def places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hek().save(tmp_path / "hek")
    write_jsonl(tmp_path / "t.jsonl", [trajectory("q1"), trajectory("q1", correct=False)])
    write_jsonl(tmp_path / "q.jsonl", [{"id": "1", "question": "Who?", "answer": "me"}])
    write_jsonl(tmp_path / "c.jsonl", [{"id": "1", "title": "T", "text": "t"}])
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("text")
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / "CURRENT").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    return tmp_path


ROLLOUT = ["rollout", "--questions", "q.jsonl", "--corpus", "c.jsonl", "--out", "o"]
EVAL = ["eval", "--questions", "q.jsonl", "--corpus", "c.jsonl", "--out", "o"]
BUILD = ["build", "--trajectories", "t.jsonl", "--encoder"]
BOMB = (
    "[&a [x,x,x,x,x,x,x,x],"
    + ",".join(f"&{b} [{','.join(['*' + a] * 8)}]" for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True))
    + "]"
)
HTTP = ["rollout", "--questions", "q.jsonl", "--out", "o", "--model", "http://127.0.0.1:1/v1#m", "--search", "http"]
ODD_VALUES = ["2026-13-45", "!!int x", "!!timestamp x", "[" * 5000, "0x" + "f" * 400, BIG, "1:9:9:9:9:9:9:9:9:9", BOMB]
ODD_ADDRESSES = [
    "http://" + "a" * 100,
    "http://a..b",
    "http://a\x01b",
    "http://a b",
    "http://xn--",
    "http://[v1.x]",
    "http://\u0661\u0662.0.0.1",
]
ODD = [
    ["inspect", LONG],
    ["inspect", "file/hek"],
    ["inspect", "locked"],
    ["inspect", "loop"],
    ["inspect", "hek\0"],
    ["inspect", "caf\udce9"],
    ["versions", "file"],
    ["versions", "locked"],
    ["rollback", "hek", "--to", BIG],
    ["diff", "hek", "folder"],
    ["retrieve", "hek", "q", "--top-k", BIG],
    ["edit", "hek", "e1-0001", "--description", "d", "--reason", ""],
    ["edit", "hek/0001/..", "e9-0001", "--description", "d", "--reason", "r"],
    ["remove", "hek", "--reason", "r", "e1-0001", "e1-0002", "e2-0001"],
    [*BUILD, "hash:99999999999", "--out", "h"],
    [*BUILD, "hash:0", "--out", "h"],
    [*BUILD, "hash:8", "--out", LONG],
    [*BUILD, "hash:8", "--out", "file/h"],
    [*BUILD, "hash:8", "--out", "file"],
    [*BUILD, "folder", "--out", "h"],
    [*BUILD, "hash:8", "--out", "h", "--distiller", "files:" + LONG],
    [*BUILD, "hash:8", "--out", "h", "--distiller", "openai:http://[::1"],
    ["build", "--trajectories", "folder", "--encoder", "hash:8", "--out", "h"],
    ["build", "--trajectories", LONG, "--encoder", "hash:8", "--out", "h"],
    ["import", "folder", "--format", "openai", "--out", "o.jsonl"],
    ["import", "t.jsonl", "--format", "hiexp", "--out", "folder"],
    ["import", "t.jsonl", "--format", "hiexp", "--out", "file/o.jsonl"],
    ["import", "t.jsonl", "--format", "hiexp", "--out", LONG],
    ["import-bank", "folder", "--format", "youtu", "--encoder", "hash:8", "--out", "h"],
    ["import-bank", LONG, "--format", "reme", "--encoder", "hash:8", "--out", "h"],
    ["serve-search", "--corpus", "c.jsonl", "--port", "99999"],
    ["serve-search", "--corpus", "c.jsonl", "--port", "-1"],
    ["serve-search", "--corpus", "c.jsonl", "--port", BIG],
    ["serve-search", "--corpus", "c.jsonl", "--host", LONG],
    ["serve-search", "--corpus", "folder"],
    [*ROLLOUT, "--model", "http://[::1"],
    [*ROLLOUT, "--model", "http://127.0.0.1:99999/v1#m"],
    [*ROLLOUT, "--model", "http://127.0.0.1:port/v1#m"],
    [*ROLLOUT, "--model", "folder"],
    [*ROLLOUT, "--model", LONG],
    [*ROLLOUT, "--model", "folder", "--seed", BIG],
    [*ROLLOUT, "--model", "folder", "--max-tokens", "0"],
    [*ROLLOUT, "--model", "folder", "--temperature", "nan"],
    [*ROLLOUT, "--model", "folder", "--instructions", "folder"],
    [*ROLLOUT[:-1], "file", "--model", "http://127.0.0.1:1/v1#m"],
    [*ROLLOUT[:-1], LONG, "--model", "http://127.0.0.1:1/v1#m"],
    ["rollout", "--questions", "q.jsonl", "--search-url", "http://[::1", "--out", "o", "--model", "http://127.0.0.1:1/v1#m"],
    ["rollout", "--questions", "q.jsonl", "--search-url", "http://127.0.0.1:99999", "--out", "o", "--model", "http://127.0.0.1:1/v1#m"],
    [*EVAL, "--model", "http://127.0.0.1:1/v1#m", "--arms", "none", "--hek", LONG],
    [*EVAL, "--model", "http://127.0.0.1:1/v1#m", "--arms", "none,full", "--hek", "file"],
    *(
        [*ROLLOUT, "--model", "http://127.0.0.1:1/v1#m", "--hek", "hek", "--encoder", "hash:32", "--set", f"prompt.top_k={value}"]
        for value in ODD_VALUES
    ),
    [*ROLLOUT, "--model", "http://127.0.0.1:1/v1#m", "--hek", "hek", "--encoder", "hash:32", "--set", "prompt.top_k={a\nb"],
    *([*ROLLOUT, "--model", f"{address}/v1#m"] for address in ODD_ADDRESSES),
    *(["retrieve", "hek", "q", "--encoder", f"{address}/v1#m"] for address in ODD_ADDRESSES),
    *([*BUILD, "hash:8", "--out", "h", "--distiller", f"openai:{address}/v1#m"] for address in ODD_ADDRESSES),
    *([*HTTP, "--search-url", f"{address}/retrieve"] for address in ODD_ADDRESSES),
    ["retrieve", "hek", "q", "--top-k", "9_999_999_999"],
    [*ROLLOUT, "--model", "folder", "--limit", " 99999999999"],
    ["report", LONG, "--out", "r.html"],
    ["report", "folder", "--out", "folder"],
    ["report", "folder", "--out", "file/r.html"],
    ["audit", "hek", "--questions", "folder"],
    ["audit", "hek", "--questions", LONG],
    ["calibrate", "--vectors", "file"],
    ["calibrate", "--vectors", "folder"],
    ["calibrate", "hek", "--plot", "file/p.svg", "--encoder", "hash:32"],
    ["merge", "hek", "folder", "--out", "m"],
    ["merge", "hek", "hek", "--out", "file"],
]


@pytest.mark.parametrize("command", ODD, ids=lambda command: " ".join(each[:20] for each in command)[:70])
def test_an_odd_command_line_is_one_line_with_what_to_do(places, capsys, monkeypatch, command):
    monkeypatch.setattr("hiexp_verl.models.chat.ChatClient.__init__.__defaults__", ("", 16, 1.0, 0))
    try:
        status = main(list(command))
    except SystemExit as error:  # argparse: its usage and one line
        status = error.code
    *_, last = capsys.readouterr().err.strip().splitlines()
    assert status == 2 and last.startswith("hiexp") and ("hiexp: " in last or ": error: " in last), last
    assert "Traceback" not in last and len(last) < 1500
    assert not any(path.name.startswith(".new-") for path in places.rglob("*"))


@pytest.mark.parametrize("number", ["9780306406157", "20261127120000", "year=20261127120000"])
def test_a_text_or_a_name_of_digits_is_no_number(places, number):
    assert main(["retrieve", "hek", number, "--encoder", "hash:32"]) == 0
    assert main(["edit", "hek", "e1-0001", "--description", f"Do {number}.", "--reason", number]) == 0
    assert main(["report", "hek", "--out", number]) == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_missing_permission_is_called_so(places, capsys):
    (places / "q.jsonl").chmod(0)
    assert main(["audit", "hek", "--questions", "q.jsonl", "--encoder", "hash:32"]) == 2
    assert "Permission denied" in capsys.readouterr().err


ESCAPE = "\x1b[31mred\x1b[0m\x9b2J"


def test_no_escape_sequence_of_a_hek_reaches_the_terminal(places, capsys):
    evil = hek(entry(1, title=f"When {ESCAPE}"), entry(2, description=f"Do {ESCAPE}"), reason=f"edit {ESCAPE}", distiller=ESCAPE)
    root = places / "evil"
    evil.save(root)
    other = hek(entry(1, title="When else"), entry(3))
    other.save(root)
    write_jsonl(places / "asked.jsonl", [{"id": f"q1{ESCAPE}", "question": f"Who {ESCAPE}?", "answer": "me"}])
    told = ""
    for command in (
        ["inspect", "evil/0001"],
        ["inspect", "evil/0001", "e1-0001"],
        ["inspect", "evil/0001", "--json"],
        ["versions", "evil"],
        ["versions", "evil", "--json"],
        ["diff", "evil/0001", "evil/0002"],
        ["diff", "evil/0001", "evil/0002", "--json"],
        ["retrieve", "evil/0001", "case 1", "--encoder", "hash:32"],
        ["audit", "evil/0001", "--questions", "asked.jsonl", "--encoder", "hash:32"],
        ["calibrate", "evil/0001", "--encoder", "hash:32"],
        ["remove", "evil", "e1-0003", "--reason", ESCAPE],
        ["edit", "evil", "e1-0001", "--description", f"Do {ESCAPE}", "--reason", ESCAPE],
        ["inspect", f"evil{ESCAPE}"],
    ):
        main(command)
        out = capsys.readouterr()
        told += out.out + out.err
    assert "red" in told and "\x1b" not in told and "\x9b" not in told


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://me:secret@host:1/retrieve", "http://host:1/retrieve"),
        ("https://host/v1?api_key=secret#model", "https://host/v1#model"),
        ("at http://u:p@h/x?k=v, then http://a/b", "at http://h/x then http://a/b"),
        ('{"url": "http://u:p@h/x?key=secret", "b": 1}', '{"url": "http://h/x", "b": 1}'),
        ("no address @ all?", "no address @ all?"),
        ("http://me:P@ss@host/x", "http://host/x"),
        ("HTTPS://host/x?KEY=secret#m", "HTTPS://host/x#m"),
        ("http://host/x#token=secret", "http://host/x"),
        ("http://me:pa/secret@host:1/x", "http://host:1/x"),
        ("http:/me:secret@host/x", "http:/host/x"),
        ("http://host:8000/x@y", "http://host:8000/x@y"),
        ("https://host/org/model@main", "https://host/org/model@main"),
    ],
)
def test_an_address_is_shown_without_credentials(address, shown):
    assert without_credentials(address) == shown


def test_credentials_stand_in_no_error_and_no_manifest(places, capsys, caplog):
    search = HttpSearch("http://me:secret@127.0.0.1:1/retrieve?key=secret", timeout=0.5, retries=0)
    with pytest.raises(SearchFailed) as error:
        search.search(["q"], 1)
    told = f"{search.url} {error.value} {error.value.detail}"
    odd = [f"http://me:{word}secret@127.0.0.1:1/v1?key={word}secret#m" for word in ("", "/", " ", "'", '"', "\\", "\n", "{", "%2F", "?")]
    for model in (*odd, "http:/me:secret@127.0.0.1/v1", "http://me:secret@[::1", "http://me:secret@127.0.0.1:99999/v1#m"):
        command = ["rollout", "--questions", "q.jsonl", "--out", "o", "--search-url", "http://me:secret@127.0.0.1:1/x?key=secret"]
        assert main([*command, "--model", model]) == 2
    told += capsys.readouterr().err + caplog.text
    told += "".join(path.read_text() for path in places.rglob("*.json") if path.is_file())
    assert "secret" not in told


def test_a_folder_inside_a_hek_is_not_loaded_as_its_encoder(places, capsys, monkeypatch):
    monkeypatch.setattr("hiexp_verl.models.encoder._load_sentence_transformer", lambda folder: pytest.fail(f"{folder} was loaded"))
    for inside in (places / "hek" / "model", "hek/model", places / "hek" / "0001" / ".." / "model"):
        (places / "hek" / "model").mkdir(exist_ok=True)
        (places / "hek" / "model" / "modules.json").write_text("[]")
        (places / "hek" / "ENCODER").write_text(f"{inside}\n")
        assert main(["retrieve", "hek", "case 1"]) == 0  # with the encoder that its header names
    elsewhere = places / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "modules.json").write_text("[]")
    (elsewhere / "model.safetensors").write_text("other weights")
    (places / "hek" / "ENCODER").write_text(f"{elsewhere}\n")
    assert main(["retrieve", "hek", "case 1"]) == 2
    assert "has other weights than" in capsys.readouterr().err


def test_an_address_in_a_hek_is_not_asked(places, monkeypatch):
    monkeypatch.setattr("hiexp_verl.models.encoder_http.openai_client", lambda *_: pytest.fail("the key would be sent"))
    (places / "hek" / "ENCODER").write_text("http://127.0.0.1:1/v1#m\n")
    assert main(["retrieve", "hek", "case 1"]) == 0  # with the encoder that its header names


@pytest.mark.parametrize("name", ["http://127.0.0.1:1/v1#m", "evil/model", "{places}/evil/model", "elsewhere/model", "..", "", "model"])
def test_no_address_and_no_path_that_a_header_names_is_followed(places, capsys, monkeypatch, name):
    monkeypatch.setattr("hiexp_verl.models.encoder_http.openai_client", lambda *_: pytest.fail("the key would be sent"))
    monkeypatch.setattr("hiexp_verl.models.encoder.model_folder", lambda folder: pytest.fail(f"{folder} was followed"))
    whole = hek()
    identity = replace(whole.header.encoder, name=name.format(places=places))
    replace(whole, header=replace(whole.header, encoder=identity)).save(places / "evil")
    for folder in ("elsewhere/model", "evil/model"):
        (places / folder).mkdir(parents=True)
    monkeypatch.chdir(places / "evil" if name == "model" else places)
    assert main(["retrieve", str(places / "evil"), "case 1"]) == 2
    assert "name the encoder yourself" in capsys.readouterr().err


def test_no_escape_sequence_and_no_credential_in_a_warning_reaches_the_terminal(places):
    whole = hek()
    identity = replace(whole.header.encoder, name=f"{ESCAPE} http://me:secret@host/x?key=secret")
    replace(whole, header=replace(whole.header, encoder=identity)).save(places / "evil")
    run = places / f"run{ESCAPE}"
    run.mkdir()
    (run / "run.json").write_text('{"kind": "rollout"}')
    write_jsonl(places / "odd.jsonl", [{"question_id": ESCAPE}])
    told = ""
    for command in (
        ["audit", "evil", "--questions", "q.jsonl"],
        ["report", "hek", run.name, "--out", "r.html"],
        ["import", "odd.jsonl", "t.jsonl", "--format", "hiexp", "--out", f"o{ESCAPE}.jsonl"],
    ):
        line = [sys.executable, "-m", "hiexp_verl.cli", *command]
        told += subprocess.run(line, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}).stderr
    assert "near-duplicates are searched by words" in told and "run.json" in told and "odd.jsonl" in told
    assert not {"\x1b", "\x9b"}.intersection(told) and "secret" not in told


@pytest.mark.parametrize("address", ["me:s3cret@host:1/v1", ":s3cret@[v1.x]:99999/", "s3cret@127.0.0.1,127.0.0.2:1", "ftp://me:s3cret@h"])
def test_an_address_without_http_is_refused_without_its_password(address):
    with pytest.raises(HiExpError, match="is not an http address") as caught:
        HttpSearch(address)
    assert "s3cret" not in str(caught.value)
