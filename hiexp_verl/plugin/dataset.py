"""verl's dataset for our question files: `data.train_files=questions.jsonl`."""

from pathlib import Path
from typing import Any

import datasets
from verl.utils.dataset.rl_dataset import RLHFDataset

from hiexp_verl.domains import Domain, domain_named
from hiexp_verl.io.datasets import read_questions
from hiexp_verl.io.questions import MARKS, answers_in, asked_in, is_answerable
from hiexp_verl.protocol import Format, check_format
from hiexp_verl.types import TRAIN, Question

QUESTION_FILES = (".jsonl", ".json", ".csv", ".tsv")  # also with .gz


class QuestionDataset(RLHFDataset):
    """`RLHFDataset` that also takes our question files (JSON lines, a JSON list, a table); verl reads parquet.

    `extra_info` of every row holds the id, the text and the answers of its question as every other command reads them.
    `extra_info.split` of every row names the role of its file in this run, whatever the row itself holds: a slice of a public
    training set may be the validation set here.
    """

    def __getitem__(self, item: int) -> dict[str, Any]:
        row = super().__getitem__(item)
        # Files that are given for both are for validation: preflight allows that only where nothing is trained.
        split = "val" if paths_of(self.original_data_files) == paths_of(self.config.get("val_files")) else TRAIN
        asked = {**row, "prompt": row["raw_prompt"]}
        name, text = asked_in(asked)
        own = {"question_id": name, "question": text, "answers": answers_in(asked), "split": split}
        return {**row, "extra_info": {**row["extra_info"], **own}}

    def _read_files_and_tokenize(self) -> None:
        if not all(is_question_file(str(file)) for file in self.data_files):
            super()._read_files_and_tokenize()
            return
        dialect = check_format(self.config.get("search_format", "hermes"))
        domain = domain_named(self.config.get("hiexp_domain", "search"))
        rows = [q for path in self.data_files for q in read_questions(Path(path))]
        if self.max_samples > 0:
            rows = rows[: self.max_samples]
        frame = datasets.Dataset.from_list([row_of(q, i, dialect, domain) for i, q in enumerate(rows)])
        self.dataframe = self.maybe_filter_out_long_prompts(frame)

    def maybe_filter_out_long_prompts(self, dataframe: Any = None) -> datasets.Dataset:
        """Return the rows whose prompts fit, without those marked as having no answer: `read_questions` leaves them out, too."""
        marked = not MARKS.keys().isdisjoint(dataframe.column_names)
        return super().maybe_filter_out_long_prompts(dataframe.filter(is_answerable) if marked else dataframe)


def paths_of(files: Any) -> list[str]:
    """Return the paths of `data.train_files` or `data.val_files`, which verl takes as a path, a list or None."""
    return [files] if isinstance(files, str) else [str(file) for file in files or ()]


def is_question_file(file: str) -> bool:
    """Whether a file of `data.train_files` or `data.val_files` is read here, not by verl."""
    return "://" not in file and file.removesuffix(".gz").endswith(QUESTION_FILES)


def row_of(question: Question, index: int, format: Format, domain: Domain) -> dict[str, Any]:
    """Return the row that verl's trainer, agent loop and reward expect for one question."""
    return {
        "data_source": str(question.meta.get("dataset") or question.meta.get("data_source") or "hiexp"),
        "prompt": domain.first_messages(question.question, format),
        "ability": domain.name,
        "reward_model": {"style": "rule", "ground_truth": {"target": list(question.answers)}},
        "extra_info": {"index": index, "question_id": question.id, "question": question.question},
    }
