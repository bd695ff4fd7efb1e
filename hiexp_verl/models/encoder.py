"""Encoders: texts in, unit vectors out.

Cosines of two encoders are not comparable (unrelated words: 0.87 with e5, 0.0 to 0.6 with MiniLM), so stored vectors and
thresholds carry the `EncoderIdentity` and are refused with another encoder.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from hiexp_verl.config import Dtype
from hiexp_verl.errors import HiExpError, first_line
from hiexp_verl.io.files import sha256_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Vectors = NDArray[np.float32]

# Texts per call of the model, the same everywhere: the last bits of a vector depend on the other texts of its batch.
CHUNK = 256
BATCH = 64  # of those, texts in one forward pass

_OTHER_FRAMEWORKS = ["*.onnx", "*.h5", "*.msgpack", "openvino/*", "onnx/*"]
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_CONFIGS = ("modules.json", "config.json")  # a sentence encoder has at least one of these


@dataclass(frozen=True)
class EncoderIdentity:
    """Properties that two encoders must share for their vectors to be comparable; the name is not compared."""

    name: str
    sha256: str  # of the weights file, or of the algorithm's description where there are no weights
    query_prefix: str
    passage_prefix: str
    dimensions: int

    def difference(self, other: "EncoderIdentity") -> str:
        """Return the first property in which two encoders differ, "" if there is none."""
        for key in ("dimensions", "sha256", "query_prefix", "passage_prefix"):
            if getattr(self, key) != getattr(other, key):
                return f"{key} {getattr(self, key)!r} against {getattr(other, key)!r}"
        return ""


class Encoder(Protocol):
    """Turns N texts into float32 vectors of length 1, (N, D)."""

    @property
    def identity(self) -> EncoderIdentity: ...
    def encode_queries(self, texts: Sequence[str]) -> Vectors: ...
    def encode_passages(self, texts: Sequence[str]) -> Vectors: ...


class HashEncoder:
    """Bag of hashed character n-grams: no model, equal on every machine; for tests and dry runs."""

    def __init__(self, dimensions: int = 256) -> None:
        if dimensions < 8:
            raise HiExpError(f"a hash encoder needs at least 8 dimensions, found {dimensions}; use hash:256")
        sha256 = hashlib.sha256(f"char-ngrams 3-5 blake2b signed {dimensions}".encode()).hexdigest()
        self.identity = EncoderIdentity(f"hash:{dimensions}", sha256, "", "", dimensions)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        vectors_N_D = np.zeros((len(texts), self.identity.dimensions), dtype=np.float32)
        for row, text in zip(vectors_N_D, texts, strict=True):
            for gram in _ngrams(text):
                bucket, sign = _bucket(gram)
                row[bucket % self.identity.dimensions] += sign
        return unit_rows(vectors_N_D)

    encode_passages = encode_queries


class PrefixedEncoder:
    """An encoder that puts its prefixes before queries and passages; `_encode` makes the vectors."""

    identity: EncoderIdentity

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of queries, (N, D)."""
        return self._encode([self.identity.query_prefix + text for text in texts]) if texts else self._none()

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of passages, (N, D)."""
        return self._encode([self.identity.passage_prefix + text for text in texts]) if texts else self._none()

    def _none(self) -> Vectors:
        return np.zeros((0, self.identity.dimensions), dtype=np.float32)

    def _encode(self, texts: list[str]) -> Vectors:
        raise NotImplementedError


class SentenceEncoder(PrefixedEncoder):
    """A sentence-transformers model from a local directory or the hub.

    Models of the e5 family, recognised by name, get their prefixes "query: " and "passage: ".

    Raises:
        HiExpError: the directory does not exist or holds no model, or sentence-transformers is not installed.
    """

    def __init__(self, path_or_name: str, expected: EncoderIdentity | None = None, device: str = "cpu", dtype: Dtype = "float32") -> None:
        if find_spec("sentence_transformers") is None:
            raise HiExpError(f"encoder {path_or_name!r} needs sentence-transformers; pip install sentence-transformers")
        folder = model_folder(path_or_name)
        sha256 = _sha256_of_weights(folder)
        if expected is not None and sha256 != expected.sha256:
            raise HiExpError(f"encoder {path_or_name} has other weights than {expected.name!r} ({sha256[:12]}, not {expected.sha256[:12]})")
        name = Path(path_or_name).name
        self._model = _load_sentence_transformer(folder, device, dtype)
        dimensions = len(self._encode(["probe"])[0])
        self.identity = EncoderIdentity(name, sha256, *prefixes_of(name), dimensions)

    def _encode(self, texts: list[str]) -> Vectors:
        chunks = [texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK)]
        encode = partial(self._model.encode, batch_size=BATCH, convert_to_numpy=True, show_progress_bar=False)
        return unit_rows(np.concatenate([np.asarray(encode(chunk), dtype=np.float32) for chunk in chunks]))


MAX_HASH_DIMENSIONS = 1 << 16


def load_encoder(spec: str, expected: EncoderIdentity | None = None, device: str = "cpu", dtype: Dtype = "float32") -> Encoder:
    """Return an encoder: `hash:256` (no model), a model directory, a name on the hub, or `URL#MODEL` of a server.

    The server has the OpenAI embeddings API, as vLLM, TEI and others serve it; `device` and `dtype` are its own matter.

    Raises:
        HiExpError: there is no such encoder, it cannot be loaded, or its weights are not those of `expected` (then nothing is loaded).
    """
    if spec.startswith("hash:"):
        size = spec.removeprefix("hash:")
        if not size.isdecimal() or not 0 < len(size) < 7 or not 0 < int(size) <= MAX_HASH_DIMENSIONS:
            wanted = f"expected 1 to {MAX_HASH_DIMENSIONS} dimensions after hash:"
            raise HiExpError(f"encoder {spec!r}: {wanted}, found {size[:20]!r}; write for example hash:256")
        return HashEncoder(int(size))
    if spec.startswith(("http://", "https://")):
        from hiexp_verl.models.encoder_http import HttpEncoder

        return HttpEncoder(spec)
    return SentenceEncoder(spec, expected, device, dtype)


def prefixes_of(name: str) -> tuple[str, str]:
    """Return what a model wants before queries and before passages."""
    is_e5 = "e5" in name.lower().replace("_", "-").replace("/", "-").split("-")
    return ("query: ", "passage: ") if is_e5 else ("", "")


def unit_rows(vectors_N_D: Vectors) -> Vectors:
    """Return the rows scaled to length 1; a row of zeros (an empty text) becomes the first axis."""
    norms_N = np.linalg.norm(vectors_N_D, axis=1)
    unit_N_D = (vectors_N_D / np.where(norms_N > 0, norms_N, 1.0)[:, None]).astype(np.float32)
    unit_N_D[norms_N == 0, 0] = 1.0
    return unit_N_D


def _ngrams(text: str) -> list[str]:
    padded = f" {' '.join(text.lower().split())} "
    return [padded[i : i + n] for n in (3, 4, 5) for i in range(len(padded) - n + 1)]


@lru_cache(maxsize=1 << 16)
def _bucket(gram: str) -> tuple[int, float]:
    # hashlib, since hash() differs from process to process.
    digest = hashlib.blake2b(gram.encode(), digest_size=8).digest()
    return int.from_bytes(digest[:7], "little"), 1.0 if digest[7] & 1 else -1.0


def model_folder(path_or_name: str) -> Path:
    """Return the directory of a model, which is fetched from the hub where it is named.

    Raises:
        HiExpError: there is none.
    """
    folder = Path(path_or_name).expanduser()
    if folder.is_dir():
        if not any((folder / name).is_file() for name in _CONFIGS):
            wanted = " nor ".join(_CONFIGS)
            raise HiExpError(f"encoder {folder} is not a model directory: found neither {wanted}; give a sentence-transformers folder")
        return folder
    if folder.exists() or path_or_name.startswith(("/", ".", "~")) or path_or_name.count("/") > 1 or not path_or_name:
        raise HiExpError(f"encoder {path_or_name!r} is not a directory; give a sentence-transformers folder, a hub name, or hash:256")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(path_or_name, ignore_patterns=_OTHER_FRAMEWORKS))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        fault = f"encoder {path_or_name!r} is neither a directory nor a model of the hub ({first_line(error)})"
        raise HiExpError(f"{fault}; give a local folder") from error


def _load_sentence_transformer(folder: Path, device: str, dtype: Dtype) -> "SentenceTransformer":
    from sentence_transformers import SentenceTransformer

    if dtype == "auto":
        dtype = "bfloat16" if device == "cpu" and has_bfloat16() else "float32"
    options: dict[str, Any] = {"device": device, "local_files_only": True, "trust_remote_code": False, "model_kwargs": {"dtype": dtype}}
    try:
        return SentenceTransformer(str(folder), **options)
    except (OSError, ValueError, KeyError) as error:
        fault = f"encoder {folder} could not be loaded ({first_line(error)})"
        raise HiExpError(f"{fault}; give a complete sentence-transformers folder") from error


def has_bfloat16() -> bool:
    """Return whether this machine's CPU computes in bfloat16; others emulate it, which is slow."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _sha256_of_weights(folder: Path) -> str:
    for pattern in _WEIGHTS:
        files = sorted(folder.glob(pattern)) or sorted(folder.glob(f"*/{pattern}"))
        if files:
            return sha256_of(*files)
    raise HiExpError(f"encoder {folder} has no weights: found neither {' nor '.join(_WEIGHTS)}; give a complete model folder")


CACHED_TEXTS = 4_096  # texts; 6 MiB at 384 dimensions


class QueryVectors:
    """An encoder with a cache of query vectors: the rollouts of a group share their question and often their first query.

    Safe to call from several threads if the encoder is.
    """

    def __init__(self, encoder: Encoder, size: int = CACHED_TEXTS) -> None:
        self.identity = encoder.identity
        self._encoder = encoder
        self._vectors: LRUCache[str, Vectors] = LRUCache(size)  # (D,) each
        self._lock = Lock()

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of passages, uncached."""
        return self._encoder.encode_passages(texts)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Return one vector for each text, (N, D); a text that occurs twice is encoded once.

        Raises:
            ValueError: the encoder returned another shape.
        """
        with self._lock:
            known = {text: self._vectors[text] for text in texts if text in self._vectors}
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if missing:
            made_N_D = self._encoder.encode_queries(missing)
            wanted = (len(missing), self.identity.dimensions)
            if made_N_D.shape != wanted:
                raise ValueError(f"the encoder returned vectors of shape {made_N_D.shape}, expected {wanted}")
            known |= zip(missing, made_N_D, strict=True)
        with self._lock:
            self._vectors.update((text, vector) for text, vector in known.items() if np.isfinite(vector).all())  # others are tried again
        return np.stack([known[text] for text in texts])
