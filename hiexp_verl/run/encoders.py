"""What a run opens: its HEK, the encoder of that, and the encoder of dense search."""

from dataclasses import replace
from pathlib import Path

from hiexp_verl.config import HiExpConfig
from hiexp_verl.encoder import Encoder, load_encoder
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.header import read_header
from hiexp_verl.hek.locate import find_encoder, open_encoder
from hiexp_verl.hek.store import HEK, version_folder


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
