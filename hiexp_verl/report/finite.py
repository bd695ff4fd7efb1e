"""Numbers out of files that anybody may have written."""

import math
import sys
from typing import Any


def finite(value: Any) -> float | None:
    """Return a finite number as a float, None for anything else (verl's logger writes NaN and infinity as null)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        return None
    return float(value)


def or_nan(value: Any) -> float:
    """Return a finite number as a float, NaN for anything else."""
    number = finite(value)
    return math.nan if number is None else number
