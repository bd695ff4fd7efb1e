"""A world of peaks, countries and capitals, and a policy that follows the plan it is shown, else guesses a way."""

import random
import re

from hiexp_verl.errors import HiExpError
from hiexp_verl.models.chat import Reply
from hiexp_verl.types import FOUND, GIVEN, Passage, Plan, Question

KIND = f"What is the capital of the country whose highest point is {GIVEN}?"
GOOD, BAD = (
    Plan(KIND, (f"{GIVEN} highest point country", f"capital of {FOUND}")),
    Plan(KIND, (f"{GIVEN} mountain", f"largest city of {FOUND}")),
)
_STARTS, _ENDS = ("Mar", "Tol", "Ben", "Kor", "Sal", "Vin"), ("dova", "kesh", "land", "stan", "mira", "goria", "quay", "berg")
COUNTRIES = [start + end for start in _STARTS for end in _ENDS]
PEAKS = {f"Mount {country[::-1].title()}": country for country in COUNTRIES}
CAPITALS = {country: f"{country[:4]}ville" for country in COUNTRIES}
CITIES = {country: f"{country[:4]}port" for country in COUNTRIES}
PASSAGES = [
    *(Passage(f"peak-{c}", peak, f"{peak} is the highest point of the country {c}.") for peak, c in PEAKS.items()),
    *(Passage(f"country-{c}", c, f"{c}: the capital is {CAPITALS[c]}, the largest city is {CITIES[c]}.") for c in COUNTRIES),
]
QUESTIONS = [Question(f"q{i:02d}", KIND.replace(GIVEN, peak), (CAPITALS[c],)) for i, (peak, c) in enumerate(PEAKS.items())]


class Follower:
    """Follows a plan in its prompt; without one it takes the good way in three of ten episodes, by its seed alone."""

    model = "follower"

    def __init__(self, stop_after=None):
        self.calls, self.stop_after = 0, stop_after

    async def chat(self, messages, *, seed=None, **_):
        self.calls += 1
        if self.stop_after is not None and self.calls > self.stop_after:
            raise HiExpError("the server has stopped")
        system, question = messages[0]["content"], messages[1]["content"]
        peak = next(peak for peak in PEAKS if peak in question)
        turns = [m["content"] for m in messages if m["role"] == "assistant"]
        shown = re.findall(r'worked: "(.+?)", then "(.+?)"', system)
        if turns:
            first = next(line for line in turns)
            good = "highest point country" in first
        else:
            good = "highest point country" in shown[0][0] if shown else random.Random(seed).random() < 0.3
        plan, country = GOOD if good else BAD, PEAKS[peak]
        searches = [search.replace(GIVEN, peak).replace(FOUND, country) for search in plan.searches]
        if len(turns) < len(searches):
            return Reply(f"<search>{searches[len(turns)]}</search>", "stop", 5)
        return Reply(f"<answer>{(CAPITALS if good else CITIES)[country]}</answer>", "stop", 5)

    async def close(self):
        return None
