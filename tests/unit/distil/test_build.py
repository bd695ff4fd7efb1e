"""`build`, as a library user calls it."""

import subprocess
import sys
from pathlib import Path

import pytest

from hiexp_verl.distil.pipeline import Built
from hiexp_verl.distil.rules import RulesDistiller
from hiexp_verl.distil.spec import BuildSpec, build
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek import HEK
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.io.manifest import read_manifest
from hiexp_verl.models.encoder import HashEncoder
from tests.support.episodes import trajectories


def test_a_file_several_files_and_trajectories_give_the_same_hek(tmp_path):
    made = trajectories()
    write_jsonl(tmp_path / "all.jsonl", made)
    write_jsonl(tmp_path / "a.jsonl", made[:12])
    write_jsonl(tmp_path / "b.jsonl", made[12:])
    given = [str(tmp_path / "all.jsonl"), [tmp_path / "a.jsonl", str(tmp_path / "b.jsonl")], made, iter(made)]
    first, *others = [build(each, encoder="hash:64").hek for each in given]
    assert all(each.content_hash() == first.content_hash() for each in others)


def test_encoder_and_distiller_are_names_or_objects():
    named = build(trajectories(), encoder="hash:64", distiller="rules")
    opened = build(trajectories(), encoder=HashEncoder(64), distiller=RulesDistiller())
    assert isinstance(named, Built) and named.version is None
    assert named.hek.content_hash() == opened.hek.content_hash()


def test_with_a_folder_the_hek_is_saved_beside_what_made_it(tmp_path):
    built = build(trajectories(), "hash:64", out=tmp_path / "hek", cluster_size=6)
    assert built.version == tmp_path / "hek" / "0001"
    assert HEK.load(tmp_path / "hek").entries == built.hek.entries
    manifest = read_manifest(tmp_path / "hek")
    assert (manifest.kind, manifest.spec["cluster_size"], manifest.spec["encoder"]) == ("build", 6, "hash:64")
    assert manifest.outcome["counts"] == built.report.counts


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cluster_sise": 6}, "unknown setting BuildSpec.cluster_sise; did you mean 'cluster_size'"),
        ({"cases_per_question": 0}, "cases_per_question must be at least 1, found 0"),
        ({"cluster_size": "4"}, "cluster_size must be a number, found '4'"),
        ({"cluster_size": None}, "cluster_size must be a number, found None"),
        ({"success_at": "half"}, "success_at must be a number, found 'half'"),
        ({"cases_per_question": 2.5}, "cases_per_question must be a whole number, found 2.5"),
        ({"concurrency": True}, "concurrency must be a whole number, found True"),
        ({"plans": "kinds"}, "plans must be one of kind, case, found 'kinds'"),
        ({"single_sided": "no"}, "single_sided must be true or false, found 'no'"),
        ({"max_model_len": 0}, "max_model_len must be at least 1, found 0"),
        ({"distiller": "magic"}, "unknown distiller 'magic'"),
        ({"calibrated": "nowhere"}, "nowhere does not exist"),
        ({"encoder": HashEncoder(8), "ray": "auto"}, "give the encoder as a directory or name"),
    ],
)
def test_what_cannot_be_built_is_one_line(options, says):
    with pytest.raises(HiExpError, match=says) as error:
        build(trajectories(), **{"encoder": "hash:64"} | options)
    assert "\n" not in str(error.value)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "hek").write_text("")
    with pytest.raises(HiExpError, match="is a file; give a directory"):
        BuildSpec([], "hash:64", out=tmp_path / "hek")


def test_the_clusters_alone_do_not_load_the_builder():
    code = "import sys, hiexp_verl.distil.cluster; print('hiexp_verl.distil.pipeline' in sys.modules, 'torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3], check=True)
    assert run.stdout == "False False\n"
