"""Vectors are unit length, the same everywhere, and carry the identity of what made them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexp_verl.errors import HiExpError
from hiexp_verl.models import encoder as encoder_module
from hiexp_verl.models.encoder import EncoderIdentity, HashEncoder, load_encoder, unit_rows
from tests.support.paths import ROOT


@given(st.lists(st.text(max_size=60), max_size=6))
def test_hash_vectors_have_length_one_whatever_the_text(texts):
    vectors = HashEncoder(32).encode_queries(texts)
    assert vectors.shape == (len(texts), 32)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_hash_vectors_are_the_same_in_another_process():
    code = "from hiexp_verl.models.encoder import HashEncoder; print(HashEncoder(16).encode_queries(['capital of France']).tolist())"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1


def test_similar_texts_are_closer_than_unrelated_ones():
    a, b, c = HashEncoder(512).encode_passages(["the capital of France", "capital of France", "who wrote Hamlet"])
    assert a @ b > 0.7 > 0.3 > a @ c


def test_a_row_of_zeros_still_gets_length_one():
    np.testing.assert_allclose(unit_rows(np.array([[0, 0], [3, 4]], dtype=np.float32)), [[1, 0], [0.6, 0.8]], rtol=1e-6)


def test_identities_differ_by_weights_and_prefixes_but_not_by_name():
    one = EncoderIdentity("minilm", "abc", "", "", 384)
    assert one.difference(EncoderIdentity("copy-of-minilm", "abc", "", "", 384)) == ""
    assert "query_prefix" in one.difference(EncoderIdentity("minilm", "abc", "query: ", "", 384))
    assert "sha256" in one.difference(EncoderIdentity("minilm", "abd", "", "", 384))


@pytest.mark.parametrize("spec", ["hash:many", "hash:2", "/nowhere/at/all", "", "."])
def test_a_specification_that_names_no_encoder_is_a_one_line_error(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HiExpError) as error:
        load_encoder(spec)
    assert "\n" not in str(error.value)


def test_a_directory_without_weights_is_named(tmp_path):
    pytest.importorskip("sentence_transformers")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(HiExpError, match=str(tmp_path)):
        load_encoder(str(tmp_path))


def minilm() -> Path:
    for name in ("minilm", "encoders/minilm"):
        folder = Path.home() / ".cache" / "hiexp_verl" / name
        if (folder / "modules.json").is_file():
            return folder
    pytest.skip("the MiniLM asset has not been fetched")


@pytest.mark.assets
def test_minilm_puts_a_paraphrase_above_an_unrelated_sentence():
    encoder = load_encoder(str(minilm()))
    assert encoder.identity.dimensions == 384
    query = encoder.encode_queries(["Who is the head of state of France?"])
    near, far = encoder.encode_passages(["president of the French republic", "how to bake bread"])
    assert (query @ near)[0] > 0.4 > (query @ far)[0]
    assert encoder.encode_passages([]).shape == (0, 384)


@pytest.mark.parametrize(
    ("flags", "dtype"), [("fpu avx512f avx512_bf16", "bfloat16"), ("fpu amx_bf16", "bfloat16"), ("fpu avx512f", "float32")]
)
def test_lookups_compute_in_bfloat16_where_the_cpu_does(tmp_path, monkeypatch, flags, dtype):
    made = []
    monkeypatch.setattr("sentence_transformers.SentenceTransformer", lambda *_, **options: made.append(options))
    monkeypatch.setattr(Path, "read_text", lambda self, **_: flags)
    encoder_module._load_sentence_transformer(tmp_path, "cpu", "auto")
    encoder_module._load_sentence_transformer(tmp_path, "cuda", "auto")
    encoder_module._load_sentence_transformer(tmp_path, "cpu", "float32")
    assert [options["model_kwargs"]["dtype"] for options in made] == [dtype, "float32", "float32"]
    assert not any(options["trust_remote_code"] for options in made)
