"""The distiller that needs no model: one template per finding, filled from the diagnosis.

Useful as a baseline and a control, and the only honest choice where the policy is too small to reflect.
"""

from collections.abc import Sequence

from hiexp_verl.build.diagnose import Diagnosis, Finding
from hiexp_verl.build.draft import Draft

_PITFALLS: frozenset[Finding] = frozenset({"no_answer", "never_searched", "repeated_query", "answer_repeats_question", "answer_form", "two_in_one_query"})
_PLAIN = {"answer": "what is asked", "yes or no": "the verdict", "person": "the person", "reason": "the reason"}


class RulesDistiller:
    """Writes E1 from a diagnosis by template."""

    name = "rules"

    def reflect(self, diagnoses: Sequence[Diagnosis]) -> list[Draft | None]:
        """Return a draft for each diagnosis."""
        return [Draft(d.kind_of_question, advice(d), "pitfall" if d.finding in _PITFALLS else "guide") for d in diagnoses]


def advice(d: Diagnosis) -> str:
    """Return what to do next time, in one or two imperative sentences, naming kinds of things only."""
    asked = _PLAIN.get(d.asked_for, f"the {d.asked_for}")
    bridge = d.bridge_kind or "intermediate thing"
    writers = {
        "no_answer": _no_answer,
        "answer_form": _answer_form,
        "never_searched": _never_searched,
        "two_in_one_query": _two_in_one_query,
        "answer_retrieved_but_missed": _missed,
        "wrong_entity": _wrong_entity,
        "entity_never_resolved": _never_resolved,
        "repeated_query": _repeated,
        "answer_repeats_question": _repeats_question,
        "stopped_early": _stopped_early,
        "dropped_condition": _dropped_condition,
        "whole_question_query": _whole_question,
        "answer_never_retrieved": _never_retrieved,
    }
    return writers[d.finding](d, asked, bridge)


def _no_answer(d: Diagnosis, asked: str, bridge: str) -> str:
    if not d.failed.queries:
        return f"Search for {asked}, then finish with a short answer in the answer tags. An episode without an answer counts for nothing."
    return f"As soon as a passage states {asked}, write it as a short answer in the answer tags. Do not search until no room is left to answer."


def _answer_form(d: Diagnosis, asked: str, bridge: str) -> str:
    said, wanted = d.failed.prediction.split(), (d.succeeded.prediction if d.succeeded else d.answers[0]).split()
    if len(said) > len(wanted):
        return f"Answer with {asked} alone, as the passage states it: no addition, no 'over' or 'about', no second name, no explanation."
    if len(said) < len(wanted):
        return f"Give {asked} in full: every part that was asked for and the complete name, not a piece of it."
    return f"Give {asked} in the form that was asked for: the thing itself and not its adjective, and the name that the passage uses."


def _never_searched(d: Diagnosis, asked: str, bridge: str) -> str:
    if d.shape in ("compare", "common", "verify"):
        return f"Look up each of the things named before deciding {asked}; do not decide from memory, however familiar they seem."
    return f"Search before answering, however familiar the subject seems, and take {asked} from a passage and not from memory."


def _two_in_one_query(d: Diagnosis, asked: str, bridge: str) -> str:
    if d.shape == "compare":
        return "Search for each of the two on its own and note the value found for it; compare only then. One query with both names finds passages about neither."
    if d.shape == "common":
        return f"Search for each of the two on its own, list what its passage says about {asked}, and answer with what both lists hold, in the most general word."
    return "Search for each of the two on its own and note what its passage says; answer yes only if both passages say so. Never judge both by one query."


def _missed(d: Diagnosis, asked: str, bridge: str) -> str:
    also = d.also
    if "two_in_one_query" in also:
        return _two_in_one_query(d, asked, bridge)
    if "entity_never_resolved" in also or "wrong_entity" in also:
        return f"Settle the {bridge} first, then search for {asked} under its name, and take the value that the passage gives for that {bridge} only."
    if "repeated_query" in also:
        return f"Asking again brings the same passages: read those at hand again, sentence by sentence, for {asked}, instead of sending the query once more."
    if "dropped_condition" in also:
        return f"Passages name several candidates for {asked}: check each one against every condition of the question, and search with the condition that was left out."
    if "stopped_early" in also:
        return f"Do not take the first plausible candidate for {asked}: search once more with its name and the condition of the question, and keep it only if confirmed."
    if "whole_question_query" in also:
        return f"Passages found with the whole question mention several candidates: take {asked} from the passage about the very thing asked about, and check it by its name."
    return f"Read every retrieved passage to its end before answering, and take {asked} from the one about the very thing asked about, not about its neighbour."


def _wrong_entity(d: Diagnosis, asked: str, bridge: str) -> str:
    return f"Before searching for {asked}, check that the {bridge} found meets every condition of the question; one that shares only a word with it leads astray."


def _never_resolved(d: Diagnosis, asked: str, bridge: str) -> str:
    return f"Search first for the {bridge} that the question describes without naming, read its name in the passage, then search for {asked} under that name."


def _repeated(d: Diagnosis, asked: str, bridge: str) -> str:
    return f"When a query brings nothing new, change it: use a name found in the passages, or ask for {asked} in other words. Do not send the same words again."


def _repeats_question(d: Diagnosis, asked: str, bridge: str) -> str:
    return f"A name that the question itself gives is hardly {asked}: search for what that name stands in relation to, and answer with the new name."


def _stopped_early(d: Diagnosis, asked: str, bridge: str) -> str:
    more = f"search next for the {bridge} that it revealed" if d.succeeded and d.succeeded.bridge else "search again with what it revealed"
    return f"Do not answer before a passage states {asked}: when the first search does not, {more}."


def _dropped_condition(d: Diagnosis, asked: str, bridge: str) -> str:
    return f"Put the words that narrow the question down into the query as well, not only the best-known name; {asked} depends on them."


def _whole_question(d: Diagnosis, asked: str, bridge: str) -> str:
    if d.shape == "indirect":
        return f"Do not paste the question into the search: ask first for the {bridge} it describes, then for {asked} by that name, one fact a query."
    return f"Do not paste the question into the search: give the name and the one fact that is wanted, {asked}."


def _never_retrieved(d: Diagnosis, asked: str, bridge: str) -> str:
    if d.shape == "indirect":
        return f"Split the question: one search for the thing it describes, a second one for {asked} with the name found. Go on until a passage states it."
    if d.shape in ("compare", "common", "verify"):
        return "Search for each of the things on its own, in different words when nothing fits, and decide only when a passage states the fact for every one."
    return f"When no passage states {asked}, search again with the name alone, then with another word for {asked}; do not answer from passages that only touch on it."
