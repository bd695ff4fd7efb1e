"""Heights are chosen from the data, and thresholds of a HEK from what it remembers."""

import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from hiexp_verl.cli import main
from hiexp_verl.distil.cluster import height_of_cosine, linkage_tree
from hiexp_verl.distil.summarise import of_other_kind, spread_order, supporters
from hiexp_verl.distil.thresholds import calibrate_height, plot, recalibrate
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek import HEK, Header
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.types import Source
from tests.support.factories import entry


def clouds(count, size, spread=0.05, seed=0):
    """Tight clouds of `size` unit vectors around `count` axes that are at right angles to each other."""
    noise = np.random.default_rng(seed).normal(size=(count * size, 64)) * spread
    vectors = np.repeat(np.eye(64)[:count], size, axis=0) + noise
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("by", ["silhouette", "stability"])
@pytest.mark.parametrize("linkage", ["ward", "average"])
def test_the_clouds_that_are_there_are_found(by, linkage):
    vectors = clouds(12, 5)
    chosen = calibrate_height(vectors, by, linkage=linkage)
    labels = linkage_tree(vectors, linkage).cut(chosen.height)
    assert labels.tolist() == np.repeat(np.arange(12), 5).tolist()


def test_a_height_by_size_gives_that_size_and_one_by_percentile_is_a_cosine_s():
    vectors = clouds(12, 5)
    assert linkage_tree(vectors).cut(calibrate_height(vectors, "size", 5.0).height).max() + 1 == 12
    by_percentile = calibrate_height(vectors, "percentile")
    assert by_percentile.height == pytest.approx(height_of_cosine(by_percentile.random_pairs["99"]), abs=1e-3)


def test_a_ward_height_splits_a_growing_bank_and_an_average_height_does_not():
    height = {linkage: height_of_cosine(0.6, linkage) for linkage in ("ward", "average")}
    counts = {
        linkage: [int(linkage_tree(clouds(2, size, 0.07), linkage).cut(height[linkage]).max()) + 1 for size in (10, 300)]
        for linkage in height
    }
    assert counts["average"] == [2, 2]
    assert counts["ward"][0] == 2 and counts["ward"][1] > 10


def test_too_little_to_calibrate_with_is_said():
    with pytest.raises(HiExpError, match="too few"):
        calibrate_height(clouds(1, 2))
    with pytest.raises(HiExpError, match="too few entries \\(3\\) for the silhouette; use --by size"):
        calibrate_height(np.repeat(clouds(1, 1), 3, axis=0), "silhouette")


def test_average_linkage_of_too_many_is_refused():
    with pytest.raises(HiExpError, match="use ward"):
        linkage_tree(np.tile(np.eye(2, dtype=np.float32), (10_001, 1)), "average")


def hek():
    encoder = HashEncoder(64)
    entries = [entry(f"e1-{i:04d}", title=f"case {word}", questions=(f"q{i}",), sources=(f"q{i}#0",)) for i, word in enumerate("abcdefgh")]
    sources = [Source(f"q{i}#0", f"q{i}", f"question {i}", "m", "x", False, (f"case {word}", word)) for i, word in enumerate("abcdefgh")]
    vectors = encoder.encode_passages([e.title for e in entries])
    return HEK(Header(encoder.identity, thresholds={"e1_ward_max_height": 9.0}), tuple(entries), vectors, tuple(sources)), encoder


def test_a_calibrated_hek_is_a_new_version_with_the_same_entries():
    before, encoder = hek()
    after = recalibrate(before, encoder, by="size", cluster_size=2.0)
    assert after.hek.entries == before.entries and after.hek.header.parents == (before.content_hash(),)
    assert after.hek.header.thresholds["e1_ward_max_height"] == after.heights["e1_ward_max_height"].height < 9.0
    assert 0 < after.hek.header.thresholds["tool_min_score"] < 1
    assert after.hek.header.reason == "calibrated by size with ward linkage, percentile 95"
    with pytest.raises(HiExpError, match="encoder"):
        recalibrate(before, HashEncoder(32))


def test_the_command_calibrates_a_hek_or_looks_at_vectors(tmp_path, capsys):
    before, _ = hek()
    before.save(tmp_path / "hek")
    arguments = ["calibrate", str(tmp_path / "hek"), "--encoder", "hash:64", "--json"]
    assert main(arguments) == 0
    printed = json.loads(capsys.readouterr().out)
    assert HEK.load(tmp_path / "hek").header.thresholds == printed["thresholds"]
    assert (tmp_path / "hek" / "CURRENT").read_text().strip() == "0002"
    np.save(tmp_path / "v.npy", clouds(12, 5))
    assert main(["calibrate", "--vectors", str(tmp_path / "v.npy"), "--by", "silhouette"]) == 0
    assert "5.0" in next(line for line in capsys.readouterr().out.splitlines() if "chosen" in line)
    assert main(["calibrate"]) == 2
    assert "give either a HEK or --vectors" in capsys.readouterr().err


def test_the_plot_is_a_picture_and_a_wrong_suffix_is_said(tmp_path):
    pytest.importorskip("matplotlib")
    calibration = calibrate_height(clouds(6, 4))
    plot({"E1": calibration}, tmp_path / "c.svg")
    assert "<svg" in (tmp_path / "c.svg").read_text()
    plot({"E1": calibration}, tmp_path / "c.PNG")
    assert (tmp_path / "c.PNG").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(HiExpError, match=r"end the name in \.svg"):
        plot({"E1": calibration}, tmp_path / "c.xyz")
    assert "chosen" in replace(calibration, height=calibration.candidates[0].height).table()


def test_a_plot_that_cannot_be_drawn_is_said_before_anything_is_saved(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    before, _ = hek()
    before.save(tmp_path / "hek")
    (tmp_path / "hek.svg").mkdir()
    for name, says in (("c.xyz", "end the name in .svg"), ("plot", "end the name in .svg"), ("hek.svg", "does not name a file")):
        assert main(["calibrate", str(tmp_path / "hek"), "--encoder", "hash:64", "--plot", str(tmp_path / name)]) == 2
        told = capsys.readouterr().err
        assert says in told and told.count("\n") == 1
    (tmp_path / "hek.svg").rmdir()
    two = replace(before, entries=before.entries[:2], vectors_E_D=before.vectors_E_D[:2])
    two.save(tmp_path / "two")
    assert main(["calibrate", str(tmp_path / "two"), "--encoder", "hash:64", "--plot", str(tmp_path / "c.svg")]) == 2
    assert "nothing to plot" in capsys.readouterr().err and (tmp_path / "two" / "CURRENT").read_text() == "0001\n"
    shutil.rmtree(tmp_path / "two")
    assert (tmp_path / "hek" / "CURRENT").read_text() == "0001\n" and [p.name for p in tmp_path.iterdir()] == ["hek"]


def _saved(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def _with(row, value):
    vectors = clouds(2, 3)
    vectors[row] *= value
    return _saved(vectors)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file"),
        (b"", "cannot be read as a .npy file"),
        (b"0.1 0.2\n0.3 0.4\n", "cannot be read as a .npy file"),
        (b"PK\x03\x04archive", "cannot be read as a .npy file"),
        (_saved(clouds(2, 3))[:200], "cannot be read as a .npy file"),
        (_saved(clouds(2, 3))[:20], "cannot be read as a .npy file"),
        (_saved(np.array([{"a": 1}], dtype=object), allow_pickle=True), "Object arrays cannot be loaded"),
        (_saved(clouds(2, 3).astype(np.float64)), "holds float64 of the shape (6, 64), not a float32 matrix"),
        (_saved(clouds(2, 3)[0]), "holds float32 of the shape (64,), not a float32 matrix"),
        (_saved(clouds(2, 3)[None]), "of the shape (1, 6, 64), not a float32 matrix"),
        (_with(3, np.nan), "1 rows are not of length 1, the first is row 3 with nan"),
        (_with(4, np.inf), "the first is row 4"),
        (_with(2, 2.0), "the first is row 2 with 2.000"),
        (_saved(clouds(1, 2)), "2 vectors are too few"),
        (_saved(np.zeros((0, 8), dtype=np.float32)), "0 vectors are too few"),
    ],
)
def test_vectors_that_cannot_be_used_have_a_line_each(tmp_path, capsys, content, says):
    if content is not None:
        (tmp_path / "v.npy").write_bytes(content)
    assert main(["calibrate", "--vectors", str(tmp_path / "v.npy")]) == 2
    told = capsys.readouterr().err
    assert says in told and told.count("\n") == 1 and "HEK" not in told


def test_members_that_do_not_support_a_summary_are_found():
    members = np.eye(4, dtype=np.float32)[[0, 0, 1, 2, 3]]
    summaries = np.eye(4, dtype=np.float32)[[0, 2]]
    # The first summary is like members 0 and 1, not like 2; the second is like one of its two.
    found = supporters(summaries, members, [[0, 1, 2], [3, 4]])
    assert [holds.tolist() for holds in found] == [[True, True, False], [True, False]]
    assert supporters(summaries[:1], members, [[0, 1, 2, 3, 4]])[0].all()


def test_the_medoid_comes_first_and_then_the_most_different():
    # Angles of 0, 40, 25 and 90 degrees: 40 is nearest to all, 90 is farthest from it, then 0 from both.
    radians = np.radians([0, 40, 25, 90])
    assert spread_order(np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)) == [1, 3, 0, 2]


def test_as_many_clusters_as_groups_were_put_in_say_nothing():
    vectors = clouds(12, 5)
    whole = calibrate_height(vectors, "stability")
    finer = calibrate_height(vectors, "stability", known_groups=12)
    assert linkage_tree(vectors).cut(whole.height).max() + 1 == 12
    assert linkage_tree(vectors).cut(finer.height).max() + 1 > 12


def test_members_about_one_thing_are_strange_to_advice_about_two():
    def of(number, *shapes):
        return entry(f"e1-{number}", shapes=shapes)

    assert of_other_kind([of(1, "compare"), of(2, "verify"), of(3, "direct")]) == {"e1-3"}
    assert of_other_kind([of(1, "indirect"), of(2, "direct"), of(3, "common")]) == {"e1-3"}
    assert of_other_kind([of(1, "compare", "direct"), of(2, "verify"), of(3)]) == set()


def test_a_vector_alone_cannot_be_clustered():
    with pytest.raises(HiExpError, match="give a matrix"):
        linkage_tree(np.ones(3, dtype=np.float32))
