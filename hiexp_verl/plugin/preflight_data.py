"""Checks of the question files of a run: well-formed, prompts short enough, no validation question in training data or HEK."""

from heapq import nlargest
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from hiexp_verl.domains import domain_named
from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.arms import shows_at
from hiexp_verl.hek.same_question import SameQuestions, text_key
from hiexp_verl.hek.store import HEK
from hiexp_verl.io.datasets import read_questions, read_records
from hiexp_verl.io.questions import answers_of, asked_in, is_answerable
from hiexp_verl.io.rows import BadRow
from hiexp_verl.models.encoder import Encoder
from hiexp_verl.models.tokenizer import PolicyTokenizer
from hiexp_verl.plugin.agent_loop import settings_of
from hiexp_verl.plugin.dataset import QUESTION_FILES, is_question_file, paths_of
from hiexp_verl.plugin.presets import REWARD
from hiexp_verl.protocol import SEARCH_TOOL_SCHEMA, check_format
from hiexp_verl.types import Message

Texts = dict[str, dict[str, str]]  # file -> name of a row -> its question
MEASURED = 64  # longest prompts of a file to render: a template may add or trim a few tokens


def check_questions(config: DictConfig, key: str) -> Texts:
    """Return the questions of the files, by file and row; check that they are well-formed and leave room for experience.

    Raises:
        HiExpError: a file is missing or malformed, or its longest prompt is too long.
    """
    texts: Texts = {}
    files = paths_of(config.data.get(key))
    if len({is_question_file(file) for file in files}) > 1:
        raise HiExpError(f"data.{key} has parquet and other files, found {', '.join(files)}; give files of one kind")
    for file in files:
        if "://" in file:
            continue  # a remote file: verl fetches it
        if not Path(file).expanduser().is_file():
            raise HiExpError(f"data.{key}: {file} does not exist")
        if not is_question_file(file) and not file.endswith(".parquet"):
            raise HiExpError(f"data.{key}: {file} is read by nothing; name it {', '.join(QUESTION_FILES)} or .parquet, as it is")
        rows = _rows(config, file)
        check_prompt_lengths(config, file, {name: prompt for name, (_, prompt) in rows.items()})
        texts[file] = {name: question for name, (question, _) in rows.items()}
    return texts


def check_validation(config: DictConfig, training: Texts, validation: Texts, hek: HEK | None, encoder: Encoder | None) -> None:
    """Refuse validation questions that are also in the training data, or in the HEK."""
    files = [_absolute(file) for file in paths_of(config.data.val_files)]
    if both := [file for file in paths_of(config.data.train_files) if _absolute(file) in files]:
        raise HiExpError(f"{both[0]} is in data.train_files and data.val_files; validate on other questions, or set trainer.val_only=true")
    asked = {text_key(text) for texts in training.values() for text in texts.values()}
    known = SameQuestions.of(hek.sources if hek is not None else (), encoder)
    for file, texts in validation.items():
        questions = f"of the {len(texts)} validation questions of {file} (the first:"
        if trained := [name for name, text in texts.items() if text_key(text) in asked]:
            raise HiExpError(f"{len(trained)} {questions} {trained[0]}) are also in data.train_files; remove them from one of the two")
        if found := [name for name, same in zip(texts, known.find(list(texts.values())), strict=True) if same]:
            raise HiExpError(
                f"the HEK was distilled from {len(found)} {questions} {found[0]}); remove them from data.val_files, or build a HEK "
                "without them (`hiexp audit` lists them)"
            )


def _rows(config: DictConfig, file: str) -> dict[str, tuple[str, list[Message]]]:
    """Return the question and the prompt of each row, by the question's id or by the row's number.

    Raises:
        HiExpError: the file is malformed, or lacks the prompts or the gold answers that our reward needs.
    """
    path = Path(file).expanduser()
    if is_question_file(file):
        dialect = check_format(config.actor_rollout_ref.rollout.multi_turn.format)
        domain = domain_named(settings_of(config).domain)
        return {q.id: (q.question, domain.first_messages(q.question, dialect)) for q in read_questions(path)}
    if path.suffix != ".parquet":  # a remote file
        return {}
    key = config.data.prompt_key
    ours = (config.reward.get("custom_reward_function") or {}).get("path") == REWARD
    found: dict[str, tuple[str, list[Message]]] = {}
    for i, (place, row) in enumerate(read_records(path, "question file")):
        prompt = row.get(key)
        if not isinstance(prompt, list) or not all(isinstance(m, dict) and {"role", "content"} <= m.keys() for m in prompt):
            raise HiExpError(
                f"{place}: the column {key!r} must be a list of messages with role and content, found {str(prompt)[:60]!r}; or give .jsonl"
            )
        try:
            if not is_answerable(row):  # `QuestionDataset` leaves it out
                continue
            _, question = asked_in(row | {"prompt": prompt})
            if ours:  # verl drops an episode whose reward fails
                answers_of(row)
            found[f"row {i}"] = question, prompt
        except BadRow as error:
            raise HiExpError(f"{place}: {error}; correct the row") from error
    if not found:
        raise HiExpError(f"{file} has no question with an answer; it needs at least one")
    return found


def questions_in(config: DictConfig, file: str) -> list[str]:
    """Return the questions of a file of the run; none of a remote file."""
    return [question for question, _ in _rows(config, file).values()]


def _absolute(file: str) -> str:
    return file if "://" in file else str(Path(file).expanduser().resolve())


def check_prompt_lengths(config: DictConfig, file: str, prompts: dict[str, list[Message]]) -> None:
    """Refuse a prompt that does not fit with its experience: verl cuts from the left, and so the system prompt first."""
    path = Path(config.actor_rollout_ref.model.path).expanduser()
    # verl fetches a hub name or a remote path. It filters prompts that do not fit, and the agent loop shows only experience that fits.
    if not prompts or not path.exists() or config.data.filter_overlong_prompts:
        return
    template_kwargs = config.data.get("apply_chat_template_kwargs") or {}
    settings = settings_of(config)
    tools = [SEARCH_TOOL_SCHEMA] if domain_named(settings.domain).tool is not None else []
    name, length = longest_prompt(PolicyTokenizer(path), prompts, tools, template_kwargs)
    limit = config.data.max_prompt_length
    experience = settings.prompt.max_tokens if shows_at("prompt", settings) else 0
    prompt = f"the prompt of question {name} in {file} has {length} tokens"
    if length > limit:
        raise HiExpError(
            f"{prompt}, over data.max_prompt_length={limit}, so verl would cut its system prompt; raise data.max_prompt_length, or set "
            "data.filter_overlong_prompts=true"
        )
    if length + experience > limit:
        raise HiExpError(
            f"{prompt}, and data.max_prompt_length={limit} leaves no room for hiexp.prompt.max_tokens={experience}; "
            f"set max_prompt_length to {length + experience} or more, or max_tokens to {limit - length}"
        )


def longest_prompt(
    tokenizer: PolicyTokenizer, prompts: dict[str, list[Message]], tools: list[dict[str, Any]], template_kwargs: Any
) -> tuple[str, int]:
    """Return the name of the longest prompt, and its length in tokens under the chat template.

    Rendering takes a millisecond, so only the `MEASURED` prompts with most tokens in their messages are rendered.
    """
    texts = list({str(message["content"]) for prompt in prompts.values() for message in prompt})
    tokens = dict(zip(texts, tokenizer.counts(texts), strict=True))
    ranked = nlargest(MEASURED, prompts, key=lambda name: sum(tokens[str(m["content"])] for m in prompts[name]))
    lengths = {name: tokenizer.count_prompt(prompts[name], tools, **template_kwargs) for name in ranked}
    longest = max(lengths, key=lengths.__getitem__)
    return longest, lengths[longest]
