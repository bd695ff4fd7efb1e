"""Arms side by side: episodes, rows, tables with intervals."""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hiexp_verl.rollout.spec import EvalSpec


class _Verb(ModuleType):
    """Lets the public API call the package: `hiexp_verl.evaluate(EvalSpec(...))`."""

    def __call__(self, spec: "EvalSpec") -> dict[str, Any]:
        """Return the table; see `evaluate.evaluate.evaluate`."""
        from hiexp_verl.evaluate.evaluate import evaluate

        return evaluate(spec)

    @property
    def __doc__(self) -> str | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What `help(hiexp_verl.evaluate)` shows."""
        from hiexp_verl.evaluate.evaluate import evaluate

        return evaluate.__doc__


sys.modules[__name__].__class__ = _Verb
