"""Rollouts without verl: one episode, many episodes, the policy that plays them."""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hiexp_verl.rollout.spec import RolloutSpec


class _Verb(ModuleType):
    """Lets the public API call the package: `hiexp_verl.rollout(RolloutSpec(...))`."""

    def __call__(self, spec: "RolloutSpec") -> dict[str, Any]:
        """Return the summary; see `rollout.rollout.rollout`."""
        from hiexp_verl.rollout.rollout import rollout

        return rollout(spec)


sys.modules[__name__].__class__ = _Verb
