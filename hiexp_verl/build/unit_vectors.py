"""Vectors that a user brings in a file of their own: each thing that may be wrong with them has its line."""

from pathlib import Path

import numpy as np

from hiexp_verl.encoder import Vectors
from hiexp_verl.errors import HiExpError

_WANTED = "give a .npy file of a float32 matrix (entries, dimensions) with rows of length 1"
_NORM_TOLERANCE = 1e-3


def read_unit_vectors(path: Path) -> Vectors:
    """Read a matrix of unit vectors, float32 (E, D), from a .npy file; never a pickle.

    Raises:
        HiExpError: no such file, not .npy, damaged, Python objects, another type or shape, not finite, or rows not of length 1.
    """
    vectors_E_D = _read(path)
    if vectors_E_D.dtype != np.float32:
        raise HiExpError(f"{path} holds {vectors_E_D.dtype}, not float32; save it again with .astype('float32')")
    if vectors_E_D.ndim != 2:
        raise HiExpError(f"{path} has the shape {vectors_E_D.shape}; {_WANTED}")
    odd_E = np.flatnonzero(~np.isfinite(vectors_E_D).all(axis=1))
    if len(odd_E):
        raise HiExpError(f"{path}: {len(odd_E)} rows hold NaN or infinity, the first is row {odd_E[0]}; leave them out")
    norms_E = np.linalg.norm(vectors_E_D, axis=1)
    off_E = np.flatnonzero(np.abs(norms_E - 1) > _NORM_TOLERANCE)
    if len(off_E):
        raise HiExpError(f"{path}: row {off_E[0]} has the length {norms_E[off_E[0]]:.3f}, not 1; divide each row by its length")
    return vectors_E_D


def _read(path: Path) -> np.ndarray:
    if not path.is_file():
        raise HiExpError(f"{path} {'is no file' if path.exists() else 'does not exist'}; {_WANTED}")
    with path.open("rb") as file:
        if not file.read(6) == np.lib.format.MAGIC_PREFIX:
            raise HiExpError(f"{path} is no .npy file; write it with numpy.save")
        file.seek(0)
        try:
            return np.lib.format.read_array(file, allow_pickle=False)
        except Exception as error:  # numpy parses the head of the file as Python and lets that parser's errors through
            if "Object arrays" in str(error):
                raise HiExpError(f"{path} holds Python objects, which are not read; {_WANTED}") from error
            raise HiExpError(f"{path} is damaged ({' '.join(str(error).split())[:200]}); write it again with numpy.save") from error
