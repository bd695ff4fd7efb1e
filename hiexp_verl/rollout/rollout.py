"""K episodes on every question, many at a time; finished episodes survive an interruption, kill -9 included."""

import asyncio
import json
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from reprlib import repr as brief
from typing import Any

from hiexp_verl.config import SearchConfig
from hiexp_verl.domains.domain import Domain
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.record import EpisodeRecord, aggregate, share
from hiexp_verl.io.datasets import read_questions, read_trajectories
from hiexp_verl.io.files import append_lines, atomic_writer, drop_torn_line, make_folder, only_one, write_jsonl, writing
from hiexp_verl.io.manifest import Manifest, read_manifest, timed
from hiexp_verl.models.chat import gather_with_progress, open_model
from hiexp_verl.rollout.episode import EpisodeSettings, Players, episode
from hiexp_verl.rollout.opening import check_continues, check_policy, open_spec
from hiexp_verl.rollout.policy import find_policy
from hiexp_verl.rollout.spec import RolloutSpec
from hiexp_verl.text import printable
from hiexp_verl.types import Question, Trajectory, to_json

logger = logging.getLogger(__name__)

TRAJECTORIES, SUMMARY = "trajectories.jsonl", "summary.json"
_NUMBERS = ("em", "f1", "cem", "format", "searches", "completion_tokens", "seconds")  # of an episode, where it has them


@dataclass(frozen=True)
class Job:
    """Where and how a set of episodes is played."""

    out: Path
    settings: EpisodeSettings
    k: int = 1  # episodes per question
    resume: bool = False  # keep finished episodes and play the others
    batch_size: int = 16  # episodes at a time
    progress: str = "rollout"  # title of the progress bar; "": none
    # So that a resumed run notices others: what is searched, and which weights play.
    corpus: str = ""
    policy: str = ""
    same_policy: bool = False  # other weights are accepted: the server has another address and the same model


def rollout(spec: RolloutSpec) -> dict[str, Any]:
    """Play K episodes on every question with the model of the spec; return the summary (see `play`).

    Raises:
        HiExpError: questions, search, model or HEK are not usable, or the output directory is not.
    """
    check_output(spec.out, spec.resume)
    questions = read_questions(spec.questions)[: spec.limit]
    # The folder first: a second run in it is refused before it merges shards or loads a model.
    with only_one(spec.out):
        policy = find_policy(spec.model, spec.out)
        opened = open_spec(spec, check_policy(policy.spec, questions, spec))
        known = {"corpus": opened.corpus, "policy": policy.identity, "same_policy": spec.same_model}
        job = Job(spec.out, spec.settings, spec.k, spec.resume, spec.batch_size, **known)
        with open_model(policy.spec, spec.batch_size, spec.max_model_len, policy.name) as client:
            return _play(questions, Players(client, opened.engine, opened.guide(spec.arm), spec.search, opened.domain), job)


def play(questions: Sequence[Question], players: Players, job: Job) -> dict[str, Any]:
    """Play every question `job.k` times; write `trajectories.jsonl` and `summary.json`; return the summary.

    Each finished episode is on disk before the next line is written. With `resume`, a last line that was cut off is dropped.
    Must not be called from inside a running event loop.

    Raises:
        HiExpError: the folder holds episodes and `resume` is off, they were made with other settings, questions, corpus or model, or
            another run is writing to it; there is nothing to do; the server fails for good.
    """
    check_output(job.out, job.resume)
    with only_one(job.out):
        return _play(questions, players, job)


def _play(questions: Sequence[Question], players: Players, job: Job) -> dict[str, Any]:
    out_dir, k, started = job.out, job.k, time.monotonic()
    if not questions or k < 1:
        raise HiExpError(f"nothing to roll out: {len(questions)} questions, k = {k}; give at least one question and k >= 1")
    path = out_dir / TRAJECTORIES
    done = _finished(path, questions)
    manifest = _manifest(job, described(players, job), bool(done))
    todo = [(q, sample) for sample in range(k) for q in questions if f"{q.id}#{sample}" not in done]
    try:
        if todo:
            manifest.add_batch_size(job.batch_size)
            with timed(out_dir, manifest):
                asyncio.run(_play_all(todo, len(questions) * k, players, job))
    except HiExpError as error:
        kept = len(_finished(path, questions))
        raise HiExpError(f"{error}; {kept} episodes are kept in {out_dir}, --resume goes on" if kept > len(done) else str(error)) from error
    order = {f"{q.id}#{sample}": (i, sample) for i, q in enumerate(questions) for sample in range(k)}
    # Episodes of questions that are no longer asked for stay in the file, at its end, and out of the summary.
    played = {t.id: t for t in read_trajectories(path)}
    trajectories = sorted(played.values(), key=lambda t: (order.get(t.id, (len(order), 0)), t.id))
    write_jsonl(path, trajectories)
    summary = {**summarise(t for t in trajectories if t.id in order), "k": k, "model": players.client.model, "resumed": len(done)}
    summary["seconds"] = round(time.monotonic() - started, 2)
    _warn_of_nothing(summary, players.domain, path)
    with atomic_writer(out_dir / SUMMARY) as file:
        file.write(json.dumps(summary, indent=1) + "\n")
    manifest.finish(out_dir)
    return summary


def _warn_of_nothing(summary: Mapping[str, Any], domain: Domain, path: Path) -> None:
    """Say so when no episode has an answer, or none a call of the tool: format and model hardly ever fit then."""
    action = f"a {domain.action[0]}" if domain.tool is not None and not summary["valid_search"] else ""
    missing = [name for name in ("an answer" * (not summary["answered"]), action) if name]
    if summary["episodes"] and missing:
        logger.warning("none of %d episodes has %s that could be read; look into %s", summary["episodes"], " or ".join(missing), path)


async def _play_all(todo: Sequence[tuple[Question, int]], total: int, players: Players, job: Job) -> None:
    """Play these questions and samples; append each episode when it is finished. `total` counts those finished before, too."""
    from tqdm import tqdm

    left, path, finished = iter(todo), job.out / TRAJECTORIES, total - len(todo)
    try:
        if players.guide is not None and players.guide.guidance.stops().left:
            await check_continues(players.client)
        with (
            writing(path),
            path.open("a", encoding="utf-8") as file,
            tqdm(total=total, initial=finished, desc=printable(job.progress), disable=not job.progress) as bar,
        ):

            async def worker() -> None:
                for question, sample in left:  # one iterator for all workers
                    append_lines(file, to_json(await episode(question, players, job.settings, sample)))
                    bar.update()

            await gather_with_progress([worker() for _ in range(min(job.batch_size, total))], name="")
    finally:
        await players.client.close()


def check_output(out_dir: Path, resume: bool) -> None:
    """Refuse to add to episodes that are there already.

    Raises:
        HiExpError: `out_dir` holds episodes and `resume` is off, or it is a file.
    """
    path = out_dir / TRAJECTORIES
    if out_dir.exists() and not out_dir.is_dir():
        raise HiExpError(f"{out_dir} is a file; give a directory for the episodes")
    if not resume and path.is_file() and path.stat().st_size:
        raise HiExpError(f"{path} exists already; add --resume to go on, or choose another output directory")


def _finished(path: Path, questions: Sequence[Question]) -> set[str]:
    """Return the ids of the episodes in the file, after cutting off a last line that was not written in full.

    Raises:
        HiExpError: a line other than the last is damaged, or a question has changed since.
    """
    make_folder(path.parent)
    if not path.is_file():
        return set()
    drop_torn_line(path)
    asked = {q.id: (q.question, q.answers) for q in questions}
    done: set[str] = set()
    for trajectory in read_trajectories(path) if path.stat().st_size else ():
        played = (trajectory.question, trajectory.answers)
        if asked.get(trajectory.question_id, played) != played:
            raise HiExpError(
                f"{path.parent} was made with another question {trajectory.question_id} ({trajectory.question[:60]!r}); "
                "use the same questions or another output directory"
            )
        if odd := [name for name in _NUMBERS if not isinstance(trajectory.extra.get(name, 0), int | float)]:
            fault = f"{path}: {odd[0]} of episode {trajectory.id} is {brief(trajectory.extra[odd[0]])}, not a number"
            raise HiExpError(f"{fault}; remove {path.parent}, which is then played again, or choose another output directory")
        done.add(trajectory.id)
    return done


def _manifest(job: Job, wanted: dict[str, Any], resuming: bool) -> Manifest:
    """Return a new manifest, or that of the episodes to go on with, after checking that they were played alike."""
    if not resuming:
        return Manifest(kind="rollout", spec=wanted, results={"episodes": [TRAJECTORIES], "summary": [SUMMARY]})
    manifest = read_manifest(job.out)
    for key, value in ((key, wanted.get(key)) for key in dict.fromkeys(("domain", *wanted))):
        if manifest.spec.get(key) != value and not (key == "policy" and job.same_policy):
            was = repr(manifest.spec.get(key))[:80]
            moved = ", --same-model if that is the same model elsewhere," if key == "policy" else ""
            raise HiExpError(f"{job.out} was made with {key} = {was}, now it is {value!r}; use the same{moved} or another output directory")
    return manifest


def described(players: Players, job: Job) -> dict[str, Any]:
    """Return the settings, search, policy and experience of a job, for its manifest."""
    experience = players.guide.settings() if players.guide is not None else {"hek": ""}
    return {
        **asdict(job.settings),
        **reading_of(players.reading),
        "corpus": job.corpus,
        "policy": job.policy,
        **experience,
        **players.domain.mark,
        "model": players.client.model,
    }


def reading_of(search: SearchConfig) -> dict[str, int]:
    """Return those settings of search that say how much the model reads."""
    return {"top_k": search.top_k, "max_words_per_passage": search.max_words_per_passage, "max_chars": search.max_chars}


def summarise(trajectories: Iterable[Trajectory]) -> dict[str, Any]:
    """Return counts, shares (0 to 1) and means over episodes; shares over nothing are 0."""
    episodes = list(trajectories)
    outcomes: dict[str, set[bool]] = defaultdict(set)
    for t in episodes:
        outcomes[t.question_id].add(t.correct)
    totals = aggregate(map(EpisodeRecord.of, episodes))

    def mean(values: Iterable[float]) -> float:
        return _share(sum(values), len(episodes))

    return {
        "questions": len(outcomes),
        "episodes": len(episodes),
        "valid_search": _share(totals.searched, len(episodes)),  # share of episodes with at least one well-formed search
        "answered": mean(bool(t.prediction) for t in episodes),
        "correct": mean(t.correct for t in episodes),
        **{name: mean(float(t.extra.get(name, 0.0)) for t in episodes) for name in ("em", "f1", "cem")},
        "reward": mean(t.score for t in episodes),
        "mean_searches": _share(totals.searches, len(episodes)),
        "mixed_groups": _share(sum(len(seen) == 2 for seen in outcomes.values()), len(outcomes)),  # with a success and a failure
        "failed_searches": _share(totals.failed_searches, totals.searches),
        "completion_tokens": totals.completion_tokens,
        "stops": dict(sorted(totals.stops.items())),
        # How much experience was shown; 0 is otherwise silent.
        "prompt_hit_rate": _share(totals.prompt_hits, len(episodes)),
        "e1_fire_rate": _share(totals.e1_fired, totals.searches - totals.failed_searches),  # of the searches that were answered
        "e1_repeats": totals.e1_repeats,
        "lookup_failures": totals.lookup_failures,
        "dropped": totals.dropped,
        "experience_tokens": round(totals.mean("experience_tokens"), 2),  # per episode
    }


def _share(part: float, whole: float) -> float:
    return round(share(part, whole), 4)
