"""A domain without a tool, for tests: sums, answered in one turn by \\boxed{}, equal where they are the same number."""

from hiexp_verl.domains import Domain
from hiexp_verl.domains.diagnosis import Diagnosis, Side, most_frequent
from hiexp_verl.masking import Masker
from hiexp_verl.scoring import Score

PLACE = "tests.support.sums:SUMS"


def score(prediction, answers, kind, question):
    right = float(prediction is not None and any(float(prediction) == float(answer) for answer in answers))
    return Score(right, right, right, right, right, right, format=float(prediction is not None))


def diagnose(contrast, most):
    best = contrast.successes[0]
    return most_frequent(
        [
            Diagnosis(
                question_id=contrast.question_id,
                question=contrast.question,
                answers=contrast.all_answers,
                finding="slip",
                failed=Side(t.id, (), t.prediction),
                succeeded=Side(best.id, (), best.prediction),
                masker=Masker(contrast.question),
            )
            for t in contrast.failures
        ],
        most,
    )


SUMS = Domain(
    name="sums",
    system_prompt=lambda format: "Add. Write the sum in \\boxed{}.",
    score=score,
    normalise=str.strip,
    diagnose=diagnose,
    meanings={"slip": "it added wrongly"},
    texts={
        "rules_e1.jsonl": '{"finding": "slip", "kind": "pitfall", "text": "Add the units first, and carry what is over ten."}',
        "rules_e2.jsonl": '{"shape": "direct", "title": "Sums, as in: {example}", "text": "Add column by column from the right."}',
        "rules_e3.jsonl": '{"shape": "direct", "title": "Sums of any kind", "text": "Check the result by another way of adding."}',
    },
)
