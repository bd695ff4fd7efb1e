"""Rollouts without verl: one episode, many episodes, the policy that plays them."""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hiexp_verl.rollout.spec import RolloutSpec


class _Verb(ModuleType):
    def __call__(self, spec: "RolloutSpec") -> dict[str, Any]:
        """Return the summary of `hiexp_verl.rollout(RolloutSpec(...))`; see `rollout.rollout.rollout`."""
        from hiexp_verl.rollout.rollout import rollout

        return rollout(spec)

    @property
    def __doc__(self) -> str | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What `help(hiexp_verl.rollout)` shows."""
        from hiexp_verl.rollout.rollout import rollout

        return rollout.__doc__


sys.modules[__name__].__class__ = _Verb  # the package is a function of the public API
