"""`hiexp build` takes its settings from the command line, and heights from a calibrated HEK."""

import subprocess
import sys

import pytest

from hiexp_verl.cli import build_parser, main
from hiexp_verl.cli.build import spec_of
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek import HEK
from hiexp_verl.io.files import write_jsonl
from tests.support.episodes import episode, trajectories, two_hops
from tests.support.paths import ROOT

PEAKS = ("Noshak", "Everest", "Elbrus", "Triglav", "Kebnekaise")


@pytest.fixture
def arguments(tmp_path):
    asked = {peak: f"What is the capital of the country whose highest point is {peak}?" for peak in PEAKS}
    rows = [two_hops(question_id=p, question=q, number=0) for p, q in asked.items()]
    rows += [episode(answer="Rome", question_id=p, question=q, number=1) for p, q in asked.items()]
    write_jsonl(tmp_path / "t.jsonl", rows)
    return ["build", "--trajectories", str(tmp_path / "t.jsonl"), "--encoder", "hash:64", "--out", str(tmp_path / "hek")]


def settings(arguments, *more):
    return spec_of(build_parser().parse_args([*arguments, *more])).with_heights()


def test_every_setting_reaches_the_build(arguments):
    config = settings(
        arguments,
        "--success-at",
        "0.8",
        "--single-sided",
        "--cases-per-question",
        "3",
        "--linkage",
        "average",
        "--cluster-size",
        "6",
        "--confirm",
    )
    assert (config.success_at, config.single_sided, config.cases_per_question, config.confirm) == (0.8, True, 3, True)
    assert (config.linkage, config.cluster_size) == ("average", 6.0)
    for wrong in (("--cases-per-question", "0"), ("--cluster-size", "0.5"), ("--cluster-size", "nan")):
        with pytest.raises(HiExpError, match=r"must be (at least 1|finite)"):
            settings(arguments, *wrong)


def test_a_build_at_calibrated_heights_clusters_there(arguments, tmp_path, capsys):
    assert main(arguments) == 0
    assert main(["calibrate", str(tmp_path / "hek"), "--encoder", "hash:64", "--cluster-size", "2"]) == 0
    height = HEK.load(tmp_path / "hek").header.thresholds["e1_ward_max_height"]
    again = [*arguments[:-1], str(tmp_path / "again"), "--calibrated", str(tmp_path / "hek")]
    assert main(again) == 0
    assert HEK.load(tmp_path / "again").header.thresholds["e1_ward_max_height"] == height
    capsys.readouterr()
    assert main([*arguments[:-1], str(tmp_path / "none"), "--calibrated", str(tmp_path / "nowhere")]) == 2
    assert "nowhere does not exist" in capsys.readouterr().err


def test_each_phase_of_a_small_build_is_told_on_stderr(arguments):
    run = subprocess.run([sys.executable, "-m", "hiexp_verl.cli", *arguments], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stderr.splitlines() == [
        "contrasting 10 trajectories",
        "diagnosing the failures of 5 contrasts",
        "reflecting on 5 diagnoses with rules",
        "clustering 1 E1, summarising the clusters",
        "clustering 1 E2, summarising the clusters",
        "encoding 3 titles, choosing thresholds",
    ]
    assert "contrasting" not in run.stdout


def test_heights_of_another_linkage_are_not_used(arguments, tmp_path, capsys):
    write_jsonl(tmp_path / "t.jsonl", trajectories())
    assert main([*arguments, "--linkage", "average"]) == 0
    again = [*arguments[:-1], str(tmp_path / "again"), "--calibrated", str(tmp_path / "hek")]
    assert main(again) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert (
        "has no heights of ward linkage, found e1_average_max_height, e2_average_max_height; give the linkage of these, or run `hiexp"
        in error
    )
    assert main([*again, "--linkage", "average"]) == 0
    heights = {"e1_average_max_height", "e2_average_max_height"}
    for name in ("hek", "again"):
        assert {key for key in HEK.load(tmp_path / name).header.thresholds if key.endswith("_max_height")} == heights
    assert main(["calibrate", str(tmp_path / "hek"), "--encoder", "hash:64", "--linkage", "ward"]) == 0
    thresholds = HEK.load(tmp_path / "hek").header.thresholds
    assert thresholds["e1_ward_max_height"] != thresholds["e1_average_max_height"]  # both hold, each for its own
    assert settings(again).heights["e1"] == thresholds["e1_ward_max_height"]


def test_without_a_ray_cluster_the_user_is_told(arguments, capsys):
    pytest.importorskip("ray")
    assert main([*arguments, "--ray", "127.0.0.1:9"]) == 2
    assert "ray start --head" in capsys.readouterr().err
