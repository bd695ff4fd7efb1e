"""Are the question files of a run well-formed, short enough, and is validation kept apart from training?"""

from pathlib import Path

from omegaconf import DictConfig
from pyarrow.parquet import read_table

from hiexp_verl.encoder import Encoder
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.same_question import SameQuestions
from hiexp_verl.hek.store import HEK
from hiexp_verl.jsonl import read_questions
from hiexp_verl.plugin.agent_loop import last_user, settings_of
from hiexp_verl.plugin.dataset import paths_of
from hiexp_verl.policy_tokenizer import PolicyTokenizer
from hiexp_verl.run.control import levels_at
from hiexp_verl.run.protocol import SEARCH_TOOL_SCHEMA, check_format, first_messages
from hiexp_verl.types import Message


def check_questions(config: DictConfig, key: str) -> None:
    """Check that question files are well-formed and that the longest prompt leaves room for experience."""
    for file in paths_of(config.data.get(key)):
        if "://" in file:
            continue  # a remote file: verl fetches it
        path = Path(file).expanduser()
        if not path.is_file():
            raise HiExpError(f"data.{key}: {file} does not exist")
        if not _is_jsonl(file):
            continue  # parquet is verl's own to read
        questions = read_questions(path)
        longest = max(questions, key=lambda q: len(q.question))
        dialect = check_format(config.actor_rollout_ref.rollout.multi_turn.format)
        check_prompt_length(config, first_messages(longest.question, dialect), longest.id)


def check_validation(data: DictConfig, hek: HEK | None, encoder: Encoder | None) -> None:
    """Check that no file is both for training and validation, and that the HEK knows no validation question.

    Raises:
        HiExpError: validation would measure what was trained on, or experience of its own questions.
    """
    files = paths_of(data.val_files)
    both = [file for file in paths_of(data.train_files) if _absolute(file) in map(_absolute, files)]
    if both:
        raise HiExpError(f"{both[0]} is in data.train_files and data.val_files; validate on other questions, or set trainer.val_only=true")
    known = SameQuestions({source.question_id: source.question for source in (hek.sources if hek is not None else ())}, encoder)
    for file in files:
        texts = _asked(file, data.prompt_key)
        found = [name for name, same in zip(texts, known.find(list(texts.values())), strict=True) if same]
        if found:
            raise HiExpError(
                f"the HEK was distilled from {len(found)} of the {len(texts)} validation questions of {file} (the first: {found[0]}); "
                "take them out of data.val_files, or build a HEK without them (`hiexp audit` lists what it knows)"
            )


def _asked(file: str, prompt_key: str) -> dict[str, str]:
    """Return the questions of a file by id, or by the number of the row; of a remote one, which verl fetches, none."""
    path = Path(file).expanduser()
    if _is_jsonl(file):
        return {q.id: q.question for q in read_questions(path)}
    if "://" in file or path.suffix != ".parquet":
        return {}
    prompts = read_table(path, columns=[prompt_key])[prompt_key].to_pylist()
    return {f"row {i}": last_user(prompt).rpartition("Question:")[2] for i, prompt in enumerate(prompts)}


def _absolute(file: str) -> str:
    return file if "://" in file else str(Path(file).expanduser().resolve())


def _is_jsonl(file: str) -> bool:
    return "://" not in file and file.endswith((".jsonl", ".jsonl.gz"))


def check_prompt_length(config: DictConfig, messages: list[Message], question_id: str) -> None:
    """Check that verl will not cut the prompt, from the left and so the system prompt first, and that experience fits in."""
    path = Path(config.actor_rollout_ref.model.path).expanduser()
    if not path.exists():
        return  # a hub name or a remote path: verl fetches it, and its own checks apply
    template_kwargs = config.data.get("apply_chat_template_kwargs") or {}
    length = PolicyTokenizer(path).count_prompt(messages, [SEARCH_TOOL_SCHEMA], **template_kwargs)
    limit = config.data.max_prompt_length
    settings = settings_of(config)
    experience = settings.start.max_tokens if settings.enabled and levels_at(settings.control, "start") else 0
    if length > limit:
        raise HiExpError(
            f"the prompt of question {question_id} has {length} tokens, over data.max_prompt_length={limit}, "
            "and verl would cut its system prompt; raise data.max_prompt_length"
        )
    if length + experience > limit:
        raise HiExpError(
            f"the prompt of question {question_id} has {length} tokens, and data.max_prompt_length={limit} leaves no room for "
            f"hiexp.start.max_tokens={experience}; raise the first to {length + experience}, or lower the second to {limit - length}"
        )
