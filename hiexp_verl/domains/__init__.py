"""Domains by name: what questions are about, how they are answered, scored and diagnosed. `docs/own_domain.md` makes one.

A domain of the user's own is named by its place, `package.module:DOMAIN`. That module is code and is run: name only one that you
trust. What a HEK or a trajectory says of its domain is compared, and never imported.
"""

from functools import cache
from importlib import import_module

from hiexp_verl.domains.domain import Domain
from hiexp_verl.errors import HiExpError, first_line
from hiexp_verl.text import printable

DOMAINS = {"search": "hiexp_verl.domains.search:SEARCH", "maths": "hiexp_verl.domains.maths.domain:MATHS"}


@cache
def domain_named(name: str) -> Domain:
    """Return the domain of this name, or the one at the place `package.module:NAME`, whose module is run.

    Raises:
        HiExpError: there is no such domain, or its module cannot be imported.
    """
    module, colon, attribute = DOMAINS.get(name, name).partition(":")
    if not (colon and module and attribute):
        known = ", ".join(DOMAINS)
        raise HiExpError(f"unknown domain {printable(name[:80])!r}; use one of {known}, or package.module:NAME of your own")
    try:
        found = getattr(import_module(module), attribute, None)
    except Exception as error:  # a module of the user's can raise anything
        fault = f"{type(error).__name__}: {first_line(error)}"
        raise HiExpError(f"the domain {name} cannot be imported ({fault}); is its folder in PYTHONPATH?") from error
    if not isinstance(found, Domain):
        raise HiExpError(f"the domain {name} is {type(found).__name__}; it must name an hiexp_verl.domains.Domain")
    if name not in DOMAINS and found.name in DOMAINS:
        raise HiExpError(f"the domain {name} has the name {found.name!r}, which is taken; give it another one")
    return found


def domain_for(recorded: str, named: str | None = None) -> Domain:
    """Return the domain that the user names, else the one of the package that a HEK says it is of.

    Raises:
        HiExpError: the HEK is of a domain of somebody's own, which has to be named.
    """
    if named is None and recorded not in DOMAINS:
        raise HiExpError(f"the HEK is of the domain {printable(recorded[:80])!r}, which is not one of ours; name it as package.module:NAME")
    return domain_named(named or recorded)


def ours(recorded: str) -> Domain | None:
    """Return the domain of the package that a HEK says it is of, None for somebody's own."""
    return domain_named(recorded) if recorded in DOMAINS else None


__all__ = ["DOMAINS", "Domain", "domain_for", "domain_named", "ours"]
