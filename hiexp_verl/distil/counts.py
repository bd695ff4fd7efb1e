"""The counters of a build: keys for code, such as `left_out.e1.not_json`, and their texts for people.

A key is made of names, with dots between: a group (`written`, `diagnosed`, `left_out`), a level where one is meant, and a
reason, such as `admit` returns for a draft. A name without a text, such as a level or a finding, is its own text.
"""

# `{}` is the text of the rest of the key.
TEXTS = {
    "questions_contrasted": "questions contrasted",
    "written": "{} written",
    "left_out": "left out: {}",
    # trajectories and questions
    "validation": "trajectories of validation questions",
    "duplicate": "duplicate trajectories",
    "duplicate_id": "trajectories whose id another one had first",
    "contradictory": "trajectories with contradictory labels",
    "successes_only": "questions with successes only",
    "failures_only": "questions with failures only",
    "failures_only_unanswered": "questions with failures only and no answer to hold them against",
    "accepted_failures": "questions whose failures gave an accepted answer",
    # answers of a model
    "not_json": "not JSON",
    "wrong_keys": "wrong keys",
    "no_text": "empty or no text",
    "unknown_kind": "unknown kind",
    "too_long": "too long",
    "copied_example": "copied a worked example",
    "repeats_title": "description says no more than the title",
    "unclear_confirmation": "confirmations that were neither yes nor no",
    "unclear_edit": "edits that cannot be read",
    # drafts
    "nothing_left": "nothing left after cleaning",
    "too_short": "too short",
    "half_sentence": "begins in the middle of a sentence",
    "copies_question": "copies the question",
    "tells_answer": "tells the answer",
    "one_case": "is about one case",
    "advises_mistake": "advises the mistake",
    "other_script": "another script than the question's",
    "copies_member": "copies one of its members",
    "new_name": "names what no member names",
    "one_member": "is about one of its members",
    "lost_point": "lost the point of the diagnosis",
    "title_replaced": "titles that do not tell the kind of question, replaced",
    # entries
    "by_rule": "written by rule, which the distiller could not write",
    "near_duplicate": "near-duplicates merged",
    "no_cluster": "entries below it that are in no cluster",
    "unsupported": "that its members do not support",
    "no_support": "whose plans have too few questions behind them",
    "detached": "members detached, which did not support it",
    # a merge of two HEKs
    "first": "{} of the first",
    "second": "{} of the second",
    "both": "{} in both",
}


def label_of(key: str) -> str:
    """Return the text of a counter: `left_out.e1.not_json` is "left out: e1 not JSON"."""
    name, _, rest = key.partition(".")
    return TEXTS.get(name, f"{name} {{}}").format(label_of(rest) if rest else "").strip()


def table_of(counts: dict[str, int]) -> list[str]:
    """Return a line for each counter above 0."""
    return [f"{count:6d} {label_of(key)}" for key, count in counts.items() if count]
