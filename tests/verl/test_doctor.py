"""`hiexp doctor` finds what is broken, says what to do, and tells by its exit code."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.verl, pytest.mark.compat]
pytest.importorskip("verl")

from hiexp_verl.cli import main
from hiexp_verl.cli.doctor import examine_hek
from tests.support.derivations import write_maths_hek
from tests.support.verl_fixtures import write_hek


def doctor(*arguments, env=None):
    command = [sys.executable, "-m", "hiexp_verl.cli", "doctor", "--json", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, env=env)
    return result.returncode, {f["name"]: f for f in json.loads(result.stdout)}


def test_all_is_well_here(tmp_path):
    code, findings = doctor("--hek", write_hek(tmp_path / "hek"))
    assert code == 0, [f for f in findings.values() if not f["ok"]]
    assert findings["HEK"]["found"] == "1 E1, 1 E2, 1 E3; encoder hash:256"
    assert findings["config group"]["found"] == "+hiexp=grpo|gspo"
    assert {f["todo"] for f in findings.values()} == {""}, "nothing is to be done where all is well"


def test_a_broken_hek_and_a_wrong_encoder_are_found(tmp_path):
    root = write_hek(tmp_path / "hek")
    whole, encoder = examine_hek(root, "hash:64")
    assert whole.ok and not encoder.ok
    (root / "0001" / "entries.jsonl").write_text("{}\n")
    (whole,) = examine_hek(root, None)
    assert (whole.name, whole.ok) == ("HEK", False), "one fault is one line"
    assert "hiexp rollback" in whole.todo


@pytest.mark.parametrize(("spec", "works"), [("hash:64", True), ("/nowhere/encoder", False)])
def test_an_encoder_is_checked_without_a_hek(spec, works):
    (encoder,) = examine_hek(None, spec)
    assert encoder.ok is works
    assert (encoder.found == "hash:64: vectors of 64 numbers") is works
    assert ("sentence-transformers loads" in encoder.todo) is not works


@pytest.mark.parametrize(
    ("given", "ok", "found"),
    [
        (["--domain", "maths", "--set", "tool.steps=2", "tool.step_tokens=64"], True, "tool.steps=2, tool.step_tokens=64"),
        (["--set", "tool.steps=2"], False, "hiexp.tool.steps=2 stops between steps, and the domain search shows E1 beside"),
        (["--domain", "maths", "--set", "tool.step_tokens=64"], False, "hiexp.tool.steps=0 stops nowhere; set steps"),
        (["--set", "tool.step=2"], False, "unknown setting hiexp.tool.step"),
    ],
)
def test_settings_of_experience_between_steps_are_checked_against_the_domain(given, ok, found, capsys, monkeypatch):
    pytest.importorskip("math_verify")
    monkeypatch.setattr("hiexp_verl.cli.doctor.examine", lambda hek, encoder: [])
    assert main(["doctor", "--json", *given]) == (0 if ok else 1)
    *_, settings = json.loads(capsys.readouterr().out)
    assert (settings["name"], settings["ok"]) == ("settings", ok) and found in settings["found"]


def test_settings_are_checked_against_the_domain_of_the_hek(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hiexp_verl.cli.doctor.examine", lambda hek, encoder: [])
    for hek, code in ((write_hek(tmp_path / "search"), 1), (write_maths_hek(tmp_path / "maths"), 0)):
        assert main(["doctor", "--hek", str(hek), "--set", "tool.steps=2"]) == code


def test_a_registration_that_fails_is_visible_and_found(tmp_path):
    """A module of ours that cannot be imported stands for any fault that verl would swallow."""
    package = tmp_path / "hiexp_fault"
    package.mkdir()
    (package / "sitecustomize.py").write_text("import sys\nsys.modules['hiexp_verl.plugin.trainer'] = None\n")
    env = {**os.environ, "PYTHONPATH": f"{package}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    # What a training imports first, then what the doctor says of it.
    code = "import json, verl.trainer.ppo.v1; from hiexp_verl.cli import doctor; print(json.dumps(doctor._registrations()[1]))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert result.returncode == 0
    assert "hiexp_verl could not register the trainers with verl" in result.stderr
    assert "trainers: ModuleNotFoundError" in json.loads(result.stdout.splitlines()[-1])


def test_a_fault_is_exit_code_1(capsys, monkeypatch):
    monkeypatch.setattr("hiexp_verl.cli.doctor.examine", lambda hek, encoder: examine_hek(None, "/nowhere/encoder"))
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.startswith("FAIL  encoder: ")
