"""Which encoders a run needs: that of its HEK, and that of dense search."""

from pathlib import Path

from hiexp_verl.config import HiExpConfig
from hiexp_verl.encoder import Encoder, load_encoder
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.locate import find_encoder, open_encoder
from hiexp_verl.hek.store import HEK


def open_encoders(settings: HiExpConfig) -> tuple[Encoder | None, Encoder | None]:
    """Return the encoder of the HEK and that of dense search, None where there is no need; the same object where they agree.

    Raises:
        HiExpError: one is needed and cannot be found, or is not the one that the HEK was made with.
    """
    encoder, spec = None, None
    if settings.enabled and settings.hek:
        path = Path(settings.hek)
        hek = HEK.load(path)
        spec = find_encoder(hek, path, settings.encoder)
        encoder = open_encoder(hek, path, settings.encoder)
    if settings.search.engine != "dense":
        return encoder, None
    # With and without a HEK the same, or a run without experience would search differently.
    wanted = settings.search.encoder or settings.encoder or spec
    if wanted is None:
        raise HiExpError("dense search needs an encoder; set hiexp.search.encoder to a directory or a name")
    return encoder, encoder if wanted == spec else load_encoder(wanted)
