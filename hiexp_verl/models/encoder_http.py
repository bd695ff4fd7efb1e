"""An encoder behind an OpenAI-compatible embeddings server (vLLM, TEI, llama.cpp): `http://HOST:PORT/v1#MODEL`."""

import hashlib

import numpy as np

from hiexp_verl.errors import HiExpError, first_line
from hiexp_verl.models.encoder import BATCH, EncoderIdentity, PrefixedEncoder, Vectors, prefixes_of, unit_rows
from hiexp_verl.models.http import openai_client
from hiexp_verl.text import without_credentials

_RETRIES = 4
_TIMEOUT = 60.0  # seconds for one request


class HttpEncoder(PrefixedEncoder):
    """Vectors of a server. Its weights are not seen, so it is identified by the name of the model and its dimensions.

    Raises:
        HiExpError: the address is malformed or names no model, or the server does not answer.
    """

    def __init__(self, spec: str) -> None:
        address, _, model = spec.partition("#")
        self._shown, self._model = without_credentials(address), model
        self._client = openai_client(address, _TIMEOUT, _RETRIES)
        if not model:
            raise HiExpError(f"the encoder {self._shown} names no model; write it as {self._shown}#MODEL")
        dimensions = len(self._encode(["probe"])[0])
        digest = hashlib.sha256(f"embeddings of {model}, {dimensions} dimensions".encode()).hexdigest()
        self.identity = EncoderIdentity(model, digest, *prefixes_of(model), dimensions)

    def _encode(self, texts: list[str]) -> Vectors:
        return unit_rows(np.concatenate([self._ask(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]))

    def _ask(self, texts: list[str]) -> Vectors:
        import openai

        try:
            rows = self._client.embeddings.create(model=self._model, input=texts, encoding_format="float").data
            vectors_N_D = np.asarray([row.embedding for row in sorted(rows, key=lambda row: row.index)], dtype=np.float32)
        except (openai.APIError, ValueError, TypeError, AttributeError, OverflowError) as error:
            fault = without_credentials(first_line(error))
            raise HiExpError(
                f"the encoder {self._shown}#{self._model} does not answer with vectors ({fault}); start or correct it"
            ) from error
        if vectors_N_D.ndim != 2 or len(vectors_N_D) != len(texts):
            raise HiExpError(f"the encoder {self._shown}#{self._model} sent {vectors_N_D.shape} numbers for {len(texts)} texts")
        return vectors_N_D
