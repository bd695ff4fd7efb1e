"""Are the question files of a run well-formed, short enough, and is validation kept apart from training?"""

from heapq import nlargest
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pyarrow import ArrowException
from pyarrow.parquet import read_schema, read_table

from hiexp_verl.errors import HiExpError
from hiexp_verl.guide.arms import arms_of, places_of
from hiexp_verl.hek.same_question import SameQuestions
from hiexp_verl.hek.store import HEK
from hiexp_verl.io.datasets import answers_of, read_questions, without_instructions
from hiexp_verl.io.rows import BadRow
from hiexp_verl.models.encoder import Encoder
from hiexp_verl.models.tokenizer import PolicyTokenizer
from hiexp_verl.plugin.agent_loop import last_user, settings_of
from hiexp_verl.plugin.dataset import paths_of
from hiexp_verl.plugin.presets import common
from hiexp_verl.protocol import SEARCH_TOOL_SCHEMA, check_format, first_messages
from hiexp_verl.scoring import normalise
from hiexp_verl.types import Message

Texts = dict[str, dict[str, str]]  # file -> what names a row -> its question
MEASURED = 64  # prompts of a file: a template may trim or wrap a message, by a few tokens


def check_questions(config: DictConfig, key: str) -> Texts:
    """Check that question files are well-formed and that the longest prompt leaves room for experience; return what they ask."""
    texts: Texts = {}
    for file in paths_of(config.data.get(key)):
        if "://" in file:
            continue  # a remote file: verl fetches it
        if not Path(file).expanduser().is_file():
            raise HiExpError(f"data.{key}: {file} does not exist")
        prompts = _prompts(config, file)
        check_prompt_lengths(config, file, prompts)
        texts[file] = {name: without_instructions(last_user(prompt)) for name, prompt in prompts.items()}
    return texts


def check_validation(config: DictConfig, training: Texts, validation: Texts, hek: HEK | None, encoder: Encoder | None) -> None:
    """Check that no file and no question is both for training and validation, and that the HEK knows no validation question.

    Raises:
        HiExpError: validation would measure what was trained on, or experience of its own questions.
    """
    files = [_absolute(file) for file in paths_of(config.data.val_files)]
    both = [file for file in paths_of(config.data.train_files) if _absolute(file) in files]
    if both:
        raise HiExpError(f"{both[0]} is in data.train_files and data.val_files; validate on other questions, or set trainer.val_only=true")
    asked = {normalise(text) for texts in training.values() for text in texts.values()}
    known = SameQuestions({source.question_id: source.question for source in (hek.sources if hek is not None else ())}, encoder)
    for file, texts in validation.items():
        learnt = [name for name, text in texts.items() if normalise(text) in asked]
        if learnt:
            raise HiExpError(
                f"{len(learnt)} of the {len(texts)} validation questions of {file} (the first: {learnt[0]}) are in data.train_files, too; "
                "take them out of one of the two"
            )
        found = [name for name, same in zip(texts, known.find(list(texts.values())), strict=True) if same]
        if found:
            raise HiExpError(
                f"the HEK was distilled from {len(found)} of the {len(texts)} validation questions of {file} (the first: {found[0]}); "
                "take them out of data.val_files, or build a HEK without them (`hiexp audit` lists what it knows)"
            )


def _prompts(config: DictConfig, file: str) -> dict[str, list[Message]]:
    """Return the messages of each question by id, or by the number of its row; of a remote file, which verl fetches, none.

    Raises:
        HiExpError: the file is malformed, or has no prompts.
    """
    path = Path(file).expanduser()
    if _is_jsonl(file):
        dialect = check_format(config.actor_rollout_ref.rollout.multi_turn.format)
        return {q.id: first_messages(q.question, dialect) for q in read_questions(path)}
    if "://" in file or path.suffix != ".parquet":
        return {}
    key = config.data.prompt_key
    try:
        table = read_table(path, columns=[name for name in (key, "reward_model") if name in read_schema(path).names])
        prompts = table[key].to_pylist()
    except (ArrowException, KeyError) as error:
        raise HiExpError(f"{file} is no parquet file with a column {key!r} of messages; correct the file or data.prompt_key") from error
    for i, prompt in enumerate(prompts):
        if not isinstance(prompt, list) or not all(isinstance(m, dict) and {"role", "content"} <= m.keys() for m in prompt):
            raise HiExpError(f"row {i} of {file}: {key!r} must be a list of messages with role and content, found {str(prompt)[:80]!r}")
    if (config.reward.get("custom_reward_function") or {}).get("path") == common()["reward"]["custom_reward_function"]["path"]:
        check_answers(file, table.to_pylist())
    return {f"row {i}": prompt for i, prompt in enumerate(prompts)}


def check_answers(file: str, rows: list[dict[str, Any]]) -> None:
    """Check that our reward will find something to compare with: verl goes on without an episode whose reward fails.

    Raises:
        HiExpError: a row has no answer.
    """
    for i, row in enumerate(rows):
        try:
            answers_of(row)
        except BadRow as error:
            raise HiExpError(f"row {i} of {file}: {error}; correct reward_model.ground_truth") from error


def _absolute(file: str) -> str:
    return file if "://" in file else str(Path(file).expanduser().resolve())


def _is_jsonl(file: str) -> bool:
    return "://" not in file and file.endswith((".jsonl", ".jsonl.gz"))


def check_prompt_lengths(config: DictConfig, file: str, prompts: dict[str, list[Message]]) -> None:
    """Check that verl will not cut a prompt, from the left and so the system prompt first, and that experience fits in."""
    path = Path(config.actor_rollout_ref.model.path).expanduser()
    if not prompts or not path.exists():
        return  # a hub name or a remote path: verl fetches it, and its own checks apply
    if config.data.filter_overlong_prompts:
        return  # verl leaves out what does not fit, and the agent loop shows as much experience as does
    template_kwargs = config.data.get("apply_chat_template_kwargs") or {}
    name, length = longest_prompt(PolicyTokenizer(path), prompts, template_kwargs)
    limit = config.data.max_prompt_length
    settings = settings_of(config)
    experience = settings.prompt.max_tokens if settings.enabled and any("prompt" in places_of(arm) for arm in arms_of(settings)) else 0
    if length > limit:
        raise HiExpError(
            f"the prompt of question {name} in {file} has {length} tokens, over data.max_prompt_length={limit}, "
            "and verl would cut its system prompt; raise data.max_prompt_length, or set data.filter_overlong_prompts=true"
        )
    if length + experience > limit:
        raise HiExpError(
            f"the prompt of question {name} in {file} has {length} tokens, and data.max_prompt_length={limit} leaves no room for "
            f"hiexp.prompt.max_tokens={experience}; raise the first to {length + experience}, or lower the second to {limit - length}"
        )


def longest_prompt(tokenizer: PolicyTokenizer, prompts: dict[str, list[Message]], template_kwargs: Any) -> tuple[str, int]:
    """Return the name of the longest prompt, and its tokens under the chat template.

    All are ranked by the tokens of their messages, which is fast; the template, which costs a millisecond, is for the longest.
    """
    texts = list({str(message["content"]) for prompt in prompts.values() for message in prompt})
    tokens = dict(zip(texts, tokenizer.counts(texts), strict=True))
    ranked = nlargest(MEASURED, prompts, key=lambda name: sum(tokens[str(m["content"])] for m in prompts[name]))
    lengths = {name: tokenizer.count_prompt(prompts[name], [SEARCH_TOOL_SCHEMA], **template_kwargs) for name in ranked}
    longest = max(lengths, key=lengths.__getitem__)
    return longest, lengths[longest]
