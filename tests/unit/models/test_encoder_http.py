"""An encoder behind an OpenAI-compatible embeddings server."""

import numpy as np
import pytest

from hiexp_verl.errors import HiExpError
from hiexp_verl.models.encoder import HashEncoder, load_encoder
from tests.support.chat_server import server

LOCAL = HashEncoder(16)


def embed(request, n):
    vectors = LOCAL.encode_passages(request["input"]) * 3  # of any length
    rows = [{"object": "embedding", "index": i, "embedding": vector.tolist()} for i, vector in enumerate(vectors)]
    return 200, {"object": "list", "model": request["model"], "data": rows[::-1], "usage": {"prompt_tokens": 1, "total_tokens": 1}}


def test_vectors_come_in_the_order_of_the_texts_and_have_length_one():
    texts = [f"text {i}" for i in range(150)]
    with server(embed) as (url, requests):
        encoder = load_encoder(f"{url}#bge")
        assert np.allclose(encoder.encode_passages(texts), LOCAL.encode_passages(texts), atol=1e-5)
        assert encoder.encode_queries([]).shape == (0, 16)
        again = load_encoder(f"{url}#bge")
        other = load_encoder(f"{url}#intfloat/e5-base")
    assert {request["model"] for request in requests} == {"bge", "intfloat/e5-base"}
    assert max(len(request["input"]) for request in requests) == 64
    assert encoder.identity == again.identity and encoder.identity.difference(other.identity)
    assert other.identity.query_prefix == "query: "


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, {"data": None}), "does not answer with vectors"),
        ((200, {"data": [{"index": 0, "embedding": None}]}), "does not answer with vectors|numbers for"),
        ((200, {"data": []}), "numbers for 1 texts"),
        ((200, {"data": [{"index": 0, "embedding": [10**400]}]}), "does not answer with vectors"),
        ((401, {"error": {"message": "no key"}}), "does not answer with vectors"),
        ((200, "<html>"), "does not answer with vectors"),
    ],
)
def test_what_is_no_embeddings_server_is_one_line(answer, said):
    with server(lambda request, n: answer) as (url, _), pytest.raises(HiExpError, match=said) as error:
        load_encoder(f"{url}#bge")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("spec", "said"), [("http://127.0.0.1:1/v1", "names no model"), ("http://[::1#m", "is not an http address")])
def test_an_address_without_a_model_is_refused(spec, said):
    with pytest.raises(HiExpError, match=said):
        load_encoder(spec)
