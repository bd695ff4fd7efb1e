"""Bad input to `hiexp build`: a clear error with its line, or counted and left out; never a HEK from half of it."""

import contextlib
import gzip
import io
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexp_verl.cli import main
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek import HEK
from hiexp_verl.io.datasets import read_trajectories
from hiexp_verl.types import to_json
from tests.support.episodes import trajectories


def lines(*made) -> bytes:
    rows = [row if isinstance(row, bytes) else json.dumps(to_json(row), ensure_ascii=False).encode() for row in made]
    return b"".join(row + b"\n" for row in rows)


def run(tmp_path, content):
    (tmp_path / "t.jsonl").write_bytes(content)
    command = ["build", "--trajectories", str(tmp_path / "t.jsonl"), "--encoder", "hash:64", "--out", str(tmp_path / "hek")]
    return main(command)


def counts_of(tmp_path):
    return json.loads((tmp_path / "hek" / "run.json").read_text())["outcome"]["counts"]


GOOD = lines(*trajectories())
LATIN = json.dumps({"city": "Orl\u00e9ans"}, ensure_ascii=False).encode("latin-1")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (gzip.compress(GOOD)[: len(gzip.compress(GOOD)) // 2], "the file is damaged from here on"),
        (gzip.compress(GOOD)[:-6], f"t.jsonl:{len(trajectories()) + 1}: the file is damaged from here on"),
        (GOOD + LATIN + b"\n", f"t.jsonl:{len(trajectories()) + 1}: not UTF-8"),
        (GOOD.decode().encode("utf-16"), "t.jsonl:1: the file is UTF-16 or UTF-32"),
        (GOOD + b'{"question_id": "q1"}\n', f"t.jsonl:{len(trajectories()) + 1}: no field 'messages'"),
        (GOOD + b"\n\n{", f"t.jsonl:{len(trajectories()) + 3}: not JSON"),
        (b"", "is empty"),
        (GOOD + lines(replace(trajectories()[0], question="Another?")), "stands for two questions"),
    ],
)
def test_what_cannot_be_read_is_one_line_with_its_place_and_makes_no_hek(tmp_path, capsys, content, says):
    assert run(tmp_path, content) == 2
    told = capsys.readouterr().err
    assert says in told and told.count("\n") == 1
    assert not (tmp_path / "hek").exists()


@given(st.data(), st.booleans())
def test_damage_anywhere_gives_a_hek_or_one_line(tmp_path_factory, data, compressed):
    content = bytearray(gzip.compress(GOOD) if compressed else GOOD)
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    folder, stderr = tmp_path_factory.mktemp("b"), io.StringIO()
    with contextlib.redirect_stderr(stderr):
        code = run(folder, bytes(content))
    if code:
        assert (
            code == 2 and stderr.getvalue().startswith("hiexp: ") and stderr.getvalue().count("\n") == 1 and not (folder / "hek").exists()
        )
    else:
        assert HEK.load(folder / "hek").entries


def test_accents_in_utf8_with_a_byte_order_mark_are_read(tmp_path):
    assert run(tmp_path, b"\xef\xbb\xbf" + GOOD.replace(b"Kabul", "K\u00e1b\u00fal".encode())) == 0
    assert any("K\u00e1b\u00fal" in source.prediction for source in HEK.load(tmp_path / "hek").sources)


def test_ten_megabytes_in_one_line_are_a_line_like_another(tmp_path):
    first, *rest = trajectories()
    long = replace(first, messages=(*first.messages[:-1], {"role": "tool", "content": "Kabul " * 1_800_000}, first.messages[-1]))
    assert run(tmp_path, lines(long, *rest)) == 0
    assert counts_of(tmp_path)["trajectories"] == len(rest) + 1
    assert sum(path.stat().st_size for path in (tmp_path / "hek").rglob("*") if path.is_file()) < 1 << 20  # none of it gets in


def test_ids_that_occur_twice_are_counted_and_used_once(tmp_path):
    first, second, *rest = trajectories()
    assert run(tmp_path, lines(first, first, replace(second, id=first.id), second, *rest)) == 0
    counts = counts_of(tmp_path)
    assert counts["left_out.duplicate"] == counts["left_out.duplicate_id"] == 1
    sources = [source.id for source in HEK.load(tmp_path / "hek").sources]
    assert len(sources) == len(set(sources))


def test_a_trajectory_labelled_both_ways_is_counted_and_no_source(tmp_path):
    first, *rest = trajectories()
    assert run(tmp_path, lines(first, replace(first, id="copy", correct=False), *rest)) == 0
    assert counts_of(tmp_path)["left_out.contradictory"] == 2
    assert not {first.id, "copy"} & {source.id for source in HEK.load(tmp_path / "hek").sources}


def test_half_a_character_is_refused_with_its_line(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"question_id": "q", "question": "\\ud83d who", "answers": ["a"], "score": 0, "correct": false, "messages": []}\n')
    with pytest.raises(HiExpError, match=r"t.jsonl.*1.*half a character"):
        list(read_trajectories(path))
