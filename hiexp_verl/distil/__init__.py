"""Trajectories -> contrasts -> diagnoses -> E1 -> clusters -> E2 -> E3 -> a HEK. `build` does all of it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hiexp_verl.distil.pipeline import Built
    from hiexp_verl.distil.spec import BuildSpec, build

__all__ = ["BuildSpec", "Built", "build"]


def __getattr__(name: str) -> Any:
    """Load the builder when it is asked for: `distil.cluster` alone is light."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hiexp_verl.distil import spec

    return getattr(spec, name)
