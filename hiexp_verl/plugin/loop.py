"""The loop in training: a candidate of the HEK beside the version in use, judged by the rollouts that are trained anyway.

| step | what |
| --- | --- |
| N, every `every` steps | a task in a process of its own makes a candidate from the last `window` steps |
| N + lag + 1 | the candidate is played by half of the guided rollouts of each group; a builder that is late is waited for |
| then | the gate looks at the groups with both versions: the candidate is published, or its changes are not proposed again |

Each batch is stamped with its versions where all batches pass, and each episode looks up in the version that it was stamped with: no
broadcast, and no difference between training, refill and re-issue. Validation sees the version in use. Everything is decided by steps
and rows, so that a resumed run decides the same.
"""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from statistics import fmean
from typing import Any

import ray

from hiexp_verl.config import Budgets, HiExpConfig, LoopConfig
from hiexp_verl.config_loop import GuardsConfig
from hiexp_verl.errors import HiExpError, first_line
from hiexp_verl.hek.store import HEK
from hiexp_verl.io.files import add_lines, drop_torn_line, write_jsonl
from hiexp_verl.io.rows import BadRow, read_rows
from hiexp_verl.ledger.drift import FALLS, Span, poisoned, top_share, with_rows
from hiexp_verl.ledger.gate import LOOKS, Verdict, judge
from hiexp_verl.ledger.rows import LedgerRow, read_run
from hiexp_verl.plugin.versions import LoopState, Version, Versions, opened
from hiexp_verl.rollout.policy import EVENTS

logger = logging.getLogger(__name__)

IN_A_ROW = 3  # proposals that come to nothing before a warning
STAMP = "hiexp_versions"  # field of a batch, and keyword of an episode's `run`


class Loop:
    """The loop of one run. `begin` and `step` are called before and after each training step."""

    def __init__(self, settings: HiExpConfig, folder: Path, ledger: Path, validation: Sequence[str]) -> None:
        assert settings.hek is not None and settings.hek_hash is not None and settings.dump_dir is not None
        self.config: LoopConfig = settings.loop
        self.state = LoopState(Version(settings.hek, settings.hek_hash))
        self._settings, self._ledger, self._validation = settings, ledger, tuple(validation)
        self._events = folder / EVENTS
        self.policy: Any = None  # what the distiller `policy` asks
        self._rows: list[LedgerRow] = []  # since the candidate is tested
        self._building: Any = None
        self._seconds = 0.0
        self._proposed: dict[str, float] = {}  # figures of the candidate that this step began with

    @property
    def versions(self) -> Versions:
        """Return what the next batch is played with."""
        return Versions(self.state.incumbent, self.state.candidate)

    def begin(self, step: int) -> bool:
        """Take the candidate of the builder, when its time has come; return whether there is one from this step on."""
        state, self._seconds, self._proposed = self.state, 0.0, {}
        if state.started is None or step <= state.started + self.config.lag:
            return False
        began = time.monotonic()
        try:
            if self._building is None:  # after a resume
                self._building = self._start(state.started)
            ready, _ = ray.wait([self._building], timeout=self.config.timeout)
            if not ready:
                ray.cancel(self._building, force=True)
                raise HiExpError(f"the builder has not finished in {self.config.timeout:g} s; raise hiexp.loop.lag or hiexp.loop.timeout")
            made = ray.get(self._building)
            self._check(made)
        except Exception as error:  # whatever a builder dies of, training goes on
            self._failed(step, error)
            return False
        finally:
            self._building, state.started, self._seconds = None, None, time.monotonic() - began
        if not made.path:
            self._in_vain(step, "nothing", why=made.why)
            return False
        self._proposed = {name: getattr(made, name) for name in ("self_sourced", "changed_lookups", "removed")}
        if refusal := state.guards.refusal(self._proposed, self.config.guards):
            state.counts["held"] += 1
            self._in_vain(step, "refused", version=made.path, why=refusal)
            return False
        state.candidate, state.tested_from, self._rows = Version(made.path, made.content_hash), step, []
        state.only_removes, state.changed, state.silent = made.only_removes, (*made.came, *made.went), 0
        if state.spans and (gain := self._detectable(state.spans[-1])) < inf:
            self._proposed["detectable"] = gain
        self._note(step, "proposed", version=made.path, came=list(made.came), went=list(made.went), why=made.why, **self._proposed)
        return True

    def step(
        self, step: int, rows: Sequence[LedgerRow], alarmed: bool, last: bool = False, metrics: Mapping[str, float] | None = None
    ) -> dict[str, float]:
        """Judge the candidate by its rows, those of this step included; start the builder when it is due; return `hiexp/loop/*`."""
        state, guards, verdict, began = self.state, self.config.guards, None, time.monotonic()
        shown = {"hiexp/loop/top_share": top_share(rows)}
        if guards != GuardsConfig():
            self._guard(step, rows, {**(metrics or {}), **shown})
        *before, span = state.spans or (Span(state.incumbent.content_hash),)
        state.spans = (*before, with_rows(span, rows))
        if self.config.hold_on_alarm and poisoned(state.spans, self.config.gate.min_groups):
            self._hold(step, f"the gap and the reward with experience fell at {FALLS} publications in a row")
            state.spans = (Span(state.incumbent.content_hash),)  # judged anew
        elif alarmed and self.config.hold_on_alarm:
            self._hold(step, "an alarm is triggered", within=self._settings.alarms.window)
        elif state.previous is not None and step - state.published < guards.follow and (fall := state.guards.fall(guards)):
            self._hold(step, fall)
        elif state.candidate is not None:
            self._rows += rows
            verdict = self._judge(step)
        due = state.candidate is None and state.started is None and not alarmed and step - state.last_proposal >= self.config.every
        if due and not last:
            state.started = state.last_proposal = step
            state.counts["proposed"] += 1
            self._building = self._start(step)
        self._seconds += time.monotonic() - began
        return self._metrics(step, verdict) | shown

    def _guard(self, step: int, rows: Sequence[LedgerRow], metrics: Mapping[str, float]) -> None:
        """Let the guards see a step."""
        state = self.state
        rewards = [row.reward for row in rows if row.hek == state.incumbent.content_hash and row.guided]
        if state.guards.step(metrics, fmean(rewards) if rewards else None, self.config.guards):
            self._note(step, "guarded", why="; ".join(state.guards.raised))

    def validated(self, step: int, score: float) -> None:
        """Keep a validation of the version in use. The next step is judged by it, after a resume, too."""
        if self.config.guards.validation is not None:
            self.state.guards.validation = score
            self._note(step, "validated", score=score)

    def _start(self, step: int) -> Any:
        """Start the builder on the episodes up to this step."""
        from hiexp_verl.evolve.background import Task  # training itself does not load the builder

        folder, first = Path(str(self._settings.dump_dir)), max(1, step - self.config.window + 1)
        episodes = [str(path) for number in range(first, step + 1) if (path := folder / f"{number:06d}.jsonl").is_file()]
        task = Task(
            parent=self.state.incumbent.path,
            encoder=self._settings.encoder.path,
            episodes=tuple(episodes),
            ledger=str(self._ledger),
            until=step,
            config=self.config,
            rejected=self.state.rejected,
            validation=self._validation,
            budgets=Budgets(self._settings.prompt, self._settings.tool),
            domain=self._settings.domain,
        )
        make: Any = ray.remote(num_cpus=0, max_retries=1, max_calls=1)(_make_candidate)  # its process ends with it
        return make.remote(task, self.policy)

    def _check(self, made: Any) -> None:
        """Refuse a candidate that episodes could not look up in: look-ups that fail would count against it, and end the run."""
        from hiexp_verl.evolve.background import Candidate

        if not isinstance(made, Candidate):
            raise HiExpError(f"the builder returned {made!r:.80}, which is not a candidate")
        if not made.path:
            return
        if made.content_hash == self.state.incumbent.content_hash:
            raise HiExpError(f"the builder returned {made.path}, the version in use")
        opened(Version(made.path, made.content_hash)).check_encoder(opened(self.state.incumbent).header.encoder)

    def _detectable(self, span: Span) -> float:
        """Return the gain that a test sees in 80 of 100 cases by its last look, each version with half of a group's guided rollouts."""
        gate, guided = self.config.gate, span.guided / max(1, span.groups)
        return span.detectable(LOOKS[-1] * gate.min_groups, gate.z, guided / 2)

    def _judge(self, step: int) -> Verdict:
        """Decide on the candidate."""
        state = self.state
        assert state.candidate is not None
        last = step - state.tested_from + 1 >= self.config.max_steps
        hashes = state.incumbent.content_hash, state.candidate.content_hash
        verdict = judge(self._rows, *hashes, self.config.gate, only_removes=state.only_removes, last=last)
        if verdict.decision == "wait":
            return verdict
        if verdict.decision == "accept" and state.guards.raised:
            if last:
                self._hold(step, f"the test has ended while it was held ({'; '.join(state.guards.raised)})", within=0)
            return verdict
        if verdict.decision == "accept":
            try:
                hek = opened(state.candidate)  # that it was whole when it was made is many steps ago
            except HiExpError as error:
                state.candidate = None
                self._failed(step, error)
                return verdict
            state.previous, state.changed_since = state.incumbent, state.changed
            self._use(state.candidate, hek, step + 1)
            state.counts["accepted"] += 1
        else:
            self._reject(state.changed)
            state.counts["rejected"] += 1
        self._note(step, verdict.decision, version=state.candidate.path, verdict=verdict.to_json())
        state.candidate = None
        return verdict

    def _reject(self, changed: tuple[str, ...]) -> None:
        """Do not propose these changes again."""
        self.state.rejected = tuple(dict.fromkeys((*self.state.rejected, *changed)))

    def _use(self, version: Version, hek: HEK, step: int) -> None:
        """Show this version from a step on. What was not to leave before may be proposed to leave it."""
        kept = {entry.content_id for entry in hek.entries}
        self.state.rejected = tuple(each for each in self.state.rejected if each not in kept)
        self.state.incumbent, self.state.published = version, step
        self.state.spans = (*self.state.spans, Span(version.content_hash))
        self.state.guards.published(self.config.guards)

    def _hold(self, step: int, why: str, within: float = inf) -> None:
        """Give up the candidate, and go back to the version before where that in use was published within so many steps."""
        state = self.state
        back, hek = state.previous if step - state.published < within else None, None
        if back is not None:
            try:
                hek = opened(back)
            except HiExpError as error:
                logger.warning("the HEK stays at %s: %s", state.incumbent.path, first_line(error))
                back = state.previous = None
        if state.candidate is None and back is None:
            return
        state.counts["held"] += 1
        state.candidate = None
        if back is not None and hek is not None:
            self._use(back, hek, step + 1)
            self._reject(state.changed_since)
            state.previous, state.changed_since = None, ()
        self._note(step, "held", version=state.incumbent.path, why=why)

    def _failed(self, step: int, error: Exception) -> None:
        self.state.counts["failures"] += 1
        reason = first_line(getattr(error, "cause", None) or error)
        logger.warning("no candidate for the HEK: %s; training goes on with %s", reason, self.state.incumbent.path)
        self._in_vain(step, "failed", why=reason)

    def _in_vain(self, step: int, event: str, **more: Any) -> None:
        """Note a proposal that came to nothing; warn once of several in a row."""
        self._note(step, event, **more)
        self.state.silent += 1
        if self.state.silent == IN_A_ROW:
            logger.warning("three proposals in a row came to nothing; see %s for the reasons", self._events)

    def _note(self, step: int, event: str, **more: Any) -> None:
        """Add an event to the file of the run."""
        logger.info("HEK, step %d: %s %s", step, event, more.get("version", ""))
        row = {"step": step, "event": event, **more}
        try:
            add_lines(self._events, row)
        except HiExpError as error:
            logger.warning("%s was not noted: %s", event, error)

    def _metrics(self, step: int, verdict: Verdict | None) -> dict[str, float]:
        state = self.state
        found = {f"hiexp/loop/{name}": float(count) for name, count in state.counts.items()}
        found |= {"hiexp/loop/testing": float(state.candidate is not None), "hiexp/loop/age": float(max(0, step - state.published))}
        found["hiexp/loop/guards"] = float(len(state.guards.raised))
        found["hiexp/loop/seconds"] = self._seconds  # that the step took longer, waiting for the builder included
        found["hiexp/loop/version"] = float(Path(state.incumbent.path).name) if Path(state.incumbent.path).name.isdecimal() else 0.0
        found |= {f"hiexp/loop/{name}": value for name, value in self._proposed.items()}
        if (span := state.spans[-1]).groups:
            found["hiexp/loop/gap"] = span.gap
        if verdict is not None:
            found |= {"hiexp/loop/groups": float(verdict.groups), "hiexp/loop/gain": verdict.difference}
            if verdict.look:
                found["hiexp/loop/gain_error"] = verdict.error
        return found

    def load(self, state: Mapping[str, Any] | None, step: int) -> None:
        """Go on from a checkpoint of this step, or begin anew; events of later steps are forgotten.

        Raises:
            HiExpError: a version of the checkpoint is gone or damaged.
        """
        if state is not None:
            self.state = LoopState.from_json(state)
            for version in filter(None, (self.state.incumbent, self.state.candidate)):
                try:
                    opened(version)
                except HiExpError as error:
                    fault = "damaged" if os.path.isdir(version.path) else "gone"
                    trained = f"the checkpoint was trained with the HEK {version.path}, which is {fault}"
                    raise HiExpError(f"{trained}; put that version back") from error
        if self.state.candidate is not None:
            self._rows = [row for row in read_run(self._ledger) if row.step >= self.state.tested_from]
        if self._events.is_file():
            drop_torn_line(self._events)
            rows = [row for _, row in read_rows(self._events) if not isinstance(row, BadRow)]
            kept = [row for row in rows if isinstance(row.get("step"), int) and row["step"] <= step]
            write_jsonl(self._events, kept)
            for row in kept:
                if (row["step"], row.get("event")) == (step, "validated"):  # after the checkpoint was written
                    self.state.guards.validation = row["score"]


def _make_candidate(task: Any, policy: Any = None) -> Any:
    """Return the candidate, made at the lowest priority by one thread: rollouts and updates on the same cores come first."""
    import torch

    from hiexp_verl.evolve.background import make_candidate

    os.nice(19)
    torch.set_num_threads(1)
    return make_candidate(task, policy)
