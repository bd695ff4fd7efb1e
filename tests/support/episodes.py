"""Episodes of a search agent, written by hand, for tests of the build."""

from hiexp_verl.types import Trajectory

PASSAGES = {
    "peak": 'Doc 1(Title: "Noshak") Noshak is a mountain in Afghanistan. It is the highest point of Afghanistan.',
    "capital": 'Doc 1(Title: "Afghanistan: government") The capital of Afghanistan is Kabul.',
    "other": 'Doc 1(Title: "Tajikistan") Tajikistan is a country in Asia. Its capital is Dushanbe.',
    "bread": 'Doc 1(Title: "Bread") Bread is a food.',
}
QUESTION = "What is the capital of the country whose highest point is Noshak?"


def call(query: str) -> dict:
    return {"role": "assistant", "content": f"<think>I search.</think>\n<search> {query} </search>"}


def result(*names: str) -> dict:
    return {"role": "tool", "content": "<information>\n" + "\n".join(PASSAGES.get(name, name) for name in names) + "\n</information>"}


def episode(
    *turns: tuple[str, str],
    answer: str = "Kabul",
    correct: bool | None = None,
    question_id: str = "q1",
    question: str = QUESTION,
    answers=("Kabul",),
    number: int = 0,
) -> Trajectory:
    """Turns are (query, names of passages, or a passage "Doc ..."); the answer ends it ("" gives none)."""
    messages: list[dict] = [{"role": "system", "content": "Answer."}, {"role": "user", "content": question}]
    for query, names in turns:
        messages += [call(query), result(names) if names.startswith("Doc") else result(*names.split())]
    messages.append({"role": "assistant", "content": f"<answer> {answer} </answer>" if answer else "I do not know"})
    right = answer in answers if correct is None else correct
    return Trajectory(
        question_id, question, tuple(answers), tuple(messages), answer, float(right), right, "test", f"{question_id}#{number}"
    )


def two_hops(**fields) -> Trajectory:
    """The success: resolve the country, then ask for its capital."""
    return episode(("Noshak highest point country", "peak"), ("capital of Afghanistan", "capital"), **fields)


COUNTRIES = [
    ("Noshak", "Afghanistan", "Kabul"),
    ("Zugspitze", "Germany", "Berlin"),
    ("Gerlach", "Slovakia", "Bratislava"),
    ("Elbrus", "Russia", "Moscow"),
]


def trajectories():
    """Four countries, two kinds of question each, one success and two different failures per question."""
    made = []
    for peak, country, capital in COUNTRIES:
        docs = f'Doc 1(Title: "{peak}") {peak} is a mountain in {country}.'
        facts = f'Doc 1(Title: "{country}: facts") The capital of {country} is {capital}. Its currency is the {country} pound.'
        for what, answer in (("capital", capital), ("currency", f"{country} pound")):
            fields = {
                "question_id": f"{what}-{peak}",
                "question": QUESTION.replace("Noshak", peak).replace("capital", what),
                "answers": (answer,),
            }
            good = [(f"{peak} highest point country", docs), (f"{what} of {country}", facts)]
            made.append(episode(*good, answer=answer, number=0, **fields))
            made.append(episode(good[0], answer="Paris", number=1, **fields))
            made.append(episode(answer="Rome", number=2, **fields))
    return made
