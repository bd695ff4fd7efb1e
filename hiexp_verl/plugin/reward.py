"""The terminal reward as verl calls it: `reward.custom_reward_function.path=pkg://hiexp_verl.plugin.reward`."""

import json
from typing import Any

from hiexp_verl.domains import domain_named
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.record import EpisodeRecord, aggregate
from hiexp_verl.io.questions import answers_of
from hiexp_verl.io.rows import BadRow
from hiexp_verl.scoring import RewardKind, strip_tool_text
from hiexp_verl.types import TRAJECTORY_KEY, to_json

_COUNTED = (  # of `Totals`
    *("searches", "failed_searches", "e1_fired", "e1_repeats", "repeated_queries"),
    *("lookups", "lookup_failures", "experience_tokens"),
)


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: dict[str, Any] | None = None,
    kind: RewardKind = "concise",
    domain: str = "search",
) -> dict[str, float | str]:
    """Score one episode; every number in the result becomes a verl metric.

    Args:
        data_source: the data set's name (unused: all are scored alike).
        solution_str: everything after the prompt, tool text included; used when the agent loop is not ours.
        ground_truth: the answers, where `extra_info` has none; see `io.datasets.question_of`.
        extra_info: the row's own, with the agent loop's `hiexp` record in it.
        kind: see `config.RewardConfig`.
        domain: see `config.HiExpConfig`.

    Raises:
        HiExpError: the row has no answer.
    """
    found = (extra_info or {}).get("hiexp")
    record = EpisodeRecord.from_json(found) if found else None
    asked = domain_named(domain)
    text = record.answer_text if record is not None else asked.last_turn(solution_str)  # no tool text, no turn that searches
    try:
        answers = answers_of({"reward_model": {"ground_truth": ground_truth}, "extra_info": extra_info})
    except BadRow as error:
        raise HiExpError(f"a row has no gold answer to score against: {error}; correct reward_model.ground_truth") from error
    question = record.question if record is not None else str((extra_info or {}).get("question", ""))
    answer = asked.answer_in(strip_tool_text(text))
    score = asked.score(answer, answers, kind, question)
    totals = aggregate([record] if record is not None else [])
    result: dict[str, float | str] = {"score": score.reward}
    result |= {name: getattr(score, name) for name in ("acc", "em", "f1", "cem", "concise", "format")}
    result |= {name: float(getattr(totals, name)) for name in _COUNTED}
    result["e2_e3_shown"] = float(totals.prompt_entries)
    if record is not None and record.messages:  # the text of the episode, where it is dumped
        result[TRAJECTORY_KEY] = json.dumps(to_json(record.trajectory(answers, answer, score, "policy")))
    return result
