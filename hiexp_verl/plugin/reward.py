"""The terminal reward as verl calls it: `reward.custom_reward_function.path=pkg://hiexp_verl.plugin.reward`."""

import json
from typing import Any

from hiexp_verl.errors import HiExpError
from hiexp_verl.io.datasets import gold_answers
from hiexp_verl.io.rows import BadRow
from hiexp_verl.scoring import RewardKind, Score, extract_answer, score_text
from hiexp_verl.types import TRAJECTORY_KEY, Trajectory, to_json

# What the trajectory keeps of the agent loop's record.
_KEPT = (
    *("split", "arm", "shown", "dropped", "e1_repeats", "stripped", "queries", "repeated_queries", "searches", "failed_searches"),
    *("lookups", "lookup_failures"),
)


def compute_score(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: dict[str, Any] | None = None, kind: RewardKind = "default"
) -> dict[str, float | str]:
    """Score one episode; every number in the result becomes a verl metric.

    Args:
        data_source: the data set's name (unused: all are scored alike).
        solution_str: everything after the prompt, tool text included; used when the agent loop is not ours.
        ground_truth: see `io.datasets.gold_answers`.
        extra_info: the row's own, with the agent loop's `hiexp` record in it.
        kind: default | em | f1 | cem.

    Raises:
        HiExpError: the row has no answer.
    """
    record = dict((extra_info or {}).get("hiexp") or {})
    text = record.get("answer_text", solution_str)  # only what may answer: no tool text, no turn that searches
    try:
        answers = gold_answers(ground_truth)
    except BadRow as error:
        raise HiExpError(f"a row has no gold answer to score against: {error}; correct reward_model.ground_truth") from error
    score = score_text(text, answers, kind)
    shown = record.get("shown", [])
    fired = len({row.get("search") for row in shown if row["level"] == "e1"})
    result: dict[str, float | str] = {
        "score": score.reward,
        "acc": score.acc,
        "em": score.em,
        "f1": score.f1,
        "cem": score.cem,
        "format": score.format,
        "searches": float(record.get("searches", 0)),
        "failed_searches": float(record.get("failed_searches", 0)),
        "e1_fired": float(fired),
        "e1_repeats": float(record.get("e1_repeats", 0)),
        "repeated_queries": float(record.get("repeated_queries", 0)),
        "lookups": float(record.get("lookups", 0)),
        "lookup_failures": float(record.get("lookup_failures", 0)),
        "e2_e3_shown": float(sum(row["level"] != "e1" for row in shown)),
        "experience_tokens": float(sum(row["tokens"] for row in shown)),
    }
    if record:
        result[TRAJECTORY_KEY] = json.dumps(to_json(_trajectory(record, answers, text, score)))
    return result


def _trajectory(record: dict[str, Any], answers: tuple[str, ...], text: str, score: Score) -> Trajectory:
    return Trajectory(
        question_id=record["question_id"],
        question=record["question"],
        answers=answers,
        messages=tuple(record["messages"]),
        prediction=extract_answer(text) or "",
        score=score.reward,
        correct=score.correct,
        model="policy",
        id=f"{record['question_id']}#{record['sample']}",
        extra={key: record[key] for key in _KEPT if key in record},
    )
