"""HiExp for verl: search agents that learn from their own experience.

The public names are loaded when they are first used: importing the package loads neither torch nor verl.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hiexp_verl.errors import HiExpError
from hiexp_verl.types import Entry, Question, Trajectory

if TYPE_CHECKING:
    from hiexp_verl.distil.spec import build
    from hiexp_verl.evaluate.evaluate import evaluate
    from hiexp_verl.guide.guide import Guide
    from hiexp_verl.hek.store import HEK
    from hiexp_verl.io.datasets import read_questions, read_trajectories
    from hiexp_verl.models.encoder import load_encoder
    from hiexp_verl.rollout.rollout import rollout
    from hiexp_verl.rollout.spec import EvalSpec, RolloutSpec

__version__ = "0.1.0"

__all__ = [
    "HEK",
    "Entry",
    "EvalSpec",
    "Guide",
    "HiExpError",
    "Question",
    "RolloutSpec",
    "Trajectory",
    "build",
    "evaluate",
    "load_encoder",
    "read_questions",
    "read_trajectories",
    "rollout",
]

_MODULE_OF = {
    "HEK": "hek.store",
    "EvalSpec": "rollout.spec",
    "Guide": "guide.guide",
    "RolloutSpec": "rollout.spec",
    "build": "distil.spec",
    "load_encoder": "models.encoder",
    "read_questions": "io.datasets",
    "read_trajectories": "io.datasets",
}

_VERBS = ("evaluate", "rollout")  # packages that can be called


def __getattr__(name: str) -> Any:
    """Return a public name from the module that defines it."""
    if name in _VERBS:
        return import_module(f"{__name__}.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
