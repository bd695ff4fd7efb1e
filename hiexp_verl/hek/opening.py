"""Open what a run needs: its HEK, the encoder of that HEK, and the encoder of dense search.

A HEK identifies its encoder by content, so that it can be moved and compared. The directory of the encoder is a hint beside
the versions (`ENCODER`), outside the content hash.
"""

import os
from dataclasses import replace
from pathlib import Path

from hiexp_verl.config import Dtype, HiExpConfig
from hiexp_verl.domains import domain_named
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.schema import Header, read_header
from hiexp_verl.hek.store import CURRENT, HEK, version_folder
from hiexp_verl.io.files import atomic_writer, cache_dir, locked
from hiexp_verl.models.encoder import Encoder, load_encoder
from hiexp_verl.text import without_credentials

HINT = "ENCODER"
_MAX_HINT_BYTES = 4096


def remember_encoder(root: Path, spec: str) -> None:
    """Write the directory or name of a HEK's encoder beside its versions."""
    where = str(Path(spec).resolve()) if Path(spec).is_dir() else without_credentials(spec)
    with locked(root), atomic_writer(root / HINT) as file:
        file.write(where + "\n")


def find_encoder(header: Header, path: Path, spec: str | None = None) -> str:
    """Return the directory or name to open: `spec`, the remembered one if it exists, that of the cache, the name.

    A folder inside the HEK is not followed, and no address: a HEK from elsewhere holds text and numbers, a model's folder may hold
    code, and a server is sent the user's key and questions. An encoder behind a server is named by the user each time.

    Raises:
        HiExpError: the HEK names its encoder by an address or a path.
    """
    if spec:
        return spec
    for hint in (path / HINT, path.parent / HINT):
        if hint.is_file() and hint.stat().st_size <= _MAX_HINT_BYTES:
            remembered = hint.read_text(encoding="utf-8", errors="replace").strip()
            if _may_be_followed(remembered, hint.parent) and (Path(remembered).is_dir() or not remembered.startswith("/")):
                return remembered
    name = header.encoder.name
    is_plain = name not in ("", ".", "..", "~") and Path(name).name == name
    if is_plain and (cached := cache_dir() / name).is_dir():
        return str(cached)
    root = path.parent if (path.parent / CURRENT).is_file() and (path / "header.json").is_file() else path
    if not (name and _may_be_followed(name, root)) or (not is_plain and os.path.exists(os.path.expanduser(name))):
        fault = f"the HEK names its encoder {name[:200]!r}, an address or a path, which is not followed"
        raise HiExpError(f"{fault}; name the encoder yourself (--encoder, or hiexp.encoder=DIR)")
    return name


def _may_be_followed(place: str, root: Path) -> bool:
    """Return whether what a HEK says of its encoder's place is neither a server, which would be sent the user's key, nor inside it."""
    return "://" not in place and not Path(os.path.realpath(place)).is_relative_to(os.path.realpath(root))


def open_encoder(hek: HEK, path: Path, spec: str | None = None, device: str = "cpu", dtype: Dtype = "float32") -> Encoder:
    """Return the encoder that the HEK at `path` was made with.

    Raises:
        HiExpError: it is not found, or it is not the encoder of the HEK.
    """
    found = find_encoder(hek.header, path, spec)
    try:
        encoder = load_encoder(found, hek.header.encoder, device, dtype)
    except HiExpError as error:
        hint = "" if spec else f"; give the directory of the HEK's encoder {hek.header.encoder.name!r} (--encoder, or hiexp.encoder=DIR)"
        raise HiExpError(f"{error}{hint}") from error
    hek.check_encoder(encoder.identity)
    return encoder


def pinned(settings: HiExpConfig) -> HiExpConfig:
    """Return the settings with `hek` set to the version that is current now, and `hek_hash` to its content hash.

    A later load, on another node or after a crash, gives the same HEK or an error.

    Raises:
        HiExpError: there is no HEK.
    """
    if not (settings.enabled and settings.hek):
        return settings
    folder = version_folder(Path(settings.hek))
    return replace(settings, hek=str(folder), hek_hash=settings.hek_hash or read_header(folder).content_hash)


def open_hek(settings: HiExpConfig) -> HEK | None:
    """Return the HEK of a run, None where it has none.

    Raises:
        HiExpError: it cannot be loaded, is not the one of `hek_hash`, or is of another domain and `other_domain` is off.
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
    asked = domain_named(settings.domain).name
    if hek.header.domain != asked and not settings.other_domain:
        fault = f"HEK {settings.hek} is of the domain {hek.header.domain}, the questions are of {asked}"
        raise HiExpError(f"{fault}; give a HEK of {asked}, or show it nevertheless (--other-domain, or hiexp.other_domain=true)")
    return hek


def open_encoders(settings: HiExpConfig, hek: HEK | None) -> tuple[Encoder | None, Encoder | None]:
    """Return the encoder of the HEK and that of dense search, None where none is needed; the same object where they agree.

    Raises:
        HiExpError: one is not found, or it is not the encoder of the HEK.
    """
    encoder, spec = None, None
    if hek is not None and settings.hek:
        path = Path(settings.hek)
        spec = find_encoder(hek.header, path, settings.encoder.path)
        encoder = open_encoder(hek, path, settings.encoder.path, settings.encoder.device, settings.encoder.dtype)
    if settings.search.engine != "dense":
        return encoder, None
    # The same with and without a HEK: a run without experience searches in the same way.
    wanted = settings.search.encoder or settings.encoder.path or spec
    if wanted is None:
        raise HiExpError("dense search needs an encoder; set hiexp.search.encoder to a directory or a name")
    return encoder, encoder if wanted == spec else load_encoder(wanted, None, settings.encoder.device, settings.encoder.dtype)
