"""Open what a run needs: its HEK, the encoder of that HEK, and the encoder of dense search.

A HEK names its encoder by content, not by place, so that it can be moved and compared. The place is a hint beside the
versions (`ENCODER`), outside what is hashed.
"""

from dataclasses import replace
from pathlib import Path

from hiexp_verl.config import HiExpConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.schema import read_header
from hiexp_verl.hek.store import HEK, version_folder
from hiexp_verl.io.files import atomic_writer, cache_dir, locked
from hiexp_verl.models.encoder import Encoder, load_encoder

HINT = "ENCODER"


def remember_encoder(root: Path, spec: str) -> None:
    """Note beside the versions of a HEK which directory or name its encoder was opened from."""
    where = str(Path(spec).resolve()) if Path(spec).is_dir() else spec
    with locked(root), atomic_writer(root / HINT) as file:
        file.write(where + "\n")


def find_encoder(hek: HEK, path: Path, spec: str | None = None) -> str:
    """Return the directory or name to open: the one given, the builder's if it is still there, the cache's, the name."""
    if spec:
        return spec
    for hint in (path / HINT, path.parent / HINT):
        if hint.is_file():
            remembered = hint.read_text(encoding="utf-8").strip()
            if Path(remembered).is_dir() or not remembered.startswith("/"):
                return remembered
    name = hek.header.encoder.name
    cached = cache_dir() / name
    return str(cached) if cached.is_dir() else name


def open_encoder(hek: HEK, path: Path, spec: str | None = None) -> Encoder:
    """Open the encoder that the HEK at `path` was made with, and check that it is the one.

    Raises:
        HiExpError: it cannot be found or is another one.
    """
    found = find_encoder(hek, path, spec)
    try:
        encoder = load_encoder(found)
    except HiExpError as error:
        hint = "" if spec else f"; say where the encoder {hek.header.encoder.name!r} of this HEK lies (--encoder, or hiexp.encoder=DIR)"
        raise HiExpError(f"{error}{hint}") from error
    hek.check_encoder(encoder.identity)
    return encoder


def pinned(settings: HiExpConfig) -> HiExpConfig:
    """Return the settings with the version of the HEK that is current now, and its content hash, in place of the HEK.

    Whoever loads it later, on another node or after a crash, loads the same or fails.

    Raises:
        HiExpError: there is no HEK.
    """
    if not (settings.enabled and settings.hek):
        return settings
    folder = version_folder(Path(settings.hek))
    return replace(settings, hek=str(folder), hek_hash=settings.hek_hash or read_header(folder).content_hash)


def open_hek(settings: HiExpConfig) -> HEK | None:
    """Load the HEK of a run into memory, None where it has none. What happens to the files later changes nothing.

    Raises:
        HiExpError: it cannot be loaded, or is not the one of `hek_hash`.
    """
    if not (settings.enabled and settings.hek):
        return None
    hek = HEK.load(Path(settings.hek))
    found, wanted = hek.header.content_hash, settings.hek_hash or hek.header.content_hash
    if found != wanted:
        raise HiExpError(
            f"HEK {settings.hek} has the content hash {found[:12]}, the run wants {wanted[:12]}; put that version back, or "
            "start a run with this one (hiexp.hek_hash=null)"
        )
    return hek


def open_encoders(settings: HiExpConfig, hek: HEK | None) -> tuple[Encoder | None, Encoder | None]:
    """Return the encoder of the HEK and that of dense search, None where there is no need; the same object where they agree.

    Raises:
        HiExpError: one is needed and cannot be found, or is not the one that the HEK was made with.
    """
    encoder, spec = None, None
    if hek is not None and settings.hek:
        path = Path(settings.hek)
        spec = find_encoder(hek, path, settings.encoder)
        encoder = open_encoder(hek, path, settings.encoder)
    if settings.search.engine != "dense":
        return encoder, None
    # With and without a HEK the same, or a run without experience would search differently.
    wanted = settings.search.encoder or settings.encoder or spec
    if wanted is None:
        raise HiExpError("dense search needs an encoder; set hiexp.search.encoder to a directory or a name")
    return encoder, encoder if wanted == spec else load_encoder(wanted)
