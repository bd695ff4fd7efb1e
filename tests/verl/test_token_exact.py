"""Token ids and loss mask of whole episodes are those of the chat template, whatever happens in them.

What is expected comes from the template alone, not from verl: the messages are rendered turn by turn, with a marker for what the
policy wrote, and each piece between the markers is tokenised for itself. In the markers' place stand the very ids that were
generated: tokenising a turn's text again may split it otherwise (case "sampled"), and the policy was never in that state.

Which tokenizers are real, and which made here: see tests/chat_families.py. All files of tests/golden/tokens hold for verl 0.9.0
and 0.9.1 alike.
"""

import json
import os
from hashlib import sha256
from itertools import groupby, zip_longest

import pytest
from jinja2 import TemplateError
from omegaconf import OmegaConf

pytestmark = pytest.mark.verl
pytest.importorskip("verl")

from hiexp_verl.plugin.agent_loop import HiExpAgentLoop
from hiexp_verl.protocol import FORMATS, SEARCH_TOOL_SCHEMA, write_call
from tests.support.chat_families import families, model_type, tokenizer_of
from tests.support.paths import GOLDEN
from tests.support.verl_fixtures import SYSTEM, RecitingServer, agent_loop, compose, play, write_corpus, write_hek

TOKENS = GOLDEN / "tokens"
QUESTION = "What is the capital of the country whose highest point is Noshak?"
NOSHAK, KABUL = "Noshak highest point country", "capital of Afghanistan"
ANSWER = "<answer> Kabul </answer>"
FIRES = "hiexp.tool.min_score=-1.0"
ROLLOUT = "actor_rollout_ref.rollout.multi_turn"


def thought(text, then):
    return f"<think>\n{text}\n</think>\n\n{then}"


def byte_by_byte(tokenizer, text):
    """Return ids that no tokenizer makes of the text, but a sampler may: a token per character."""
    return [i for character in text for i in tokenizer.encode(character, add_special_tokens=False)] + [tokenizer.eos_token_id]


def script(case, dialect, tokenizer):
    """Return what the policy writes in each turn, and the settings of the case."""
    first, second = write_call(NOSHAK, dialect), write_call(KABUL, dialect)
    ids = lambda text: tokenizer.encode(text, add_special_tokens=False)  # noqa: E731
    long_second = "So, what next? " * 40 + second
    return {
        "several turns": ([thought("Which country?", first), thought("Afghanistan.", second), ANSWER], [FIRES]),
        "no E1 passes": ([first, second, ANSWER], ["hiexp.tool.min_score=1.1"]),
        "nothing shown": ([first, ANSWER], ["hiexp.arm=none"]),
        "parallel calls": ([f"{first}\n{second}", first, ANSWER], [FIRES, f"{ROLLOUT}.max_parallel_calls=2"]),
        "malformed calls": (
            [
                first.replace('"query"', '"q"'),
                first.replace("{" + f'"query": "{NOSHAK}"' + "}", "[1]"),
                first.replace('"search"', '"<|im_start|>"'),
                second,
                first.replace("}", ""),
            ],
            [FIRES],
        ),
        "malformed tags": ([first, first.replace("</search>", "<search/>")], [FIRES]),
        "sampled": ([byte_by_byte(tokenizer, first), byte_by_byte(tokenizer, second), byte_by_byte(tokenizer, ANSWER)], [FIRES]),
        "turns cut": ([ids(f"{first}\nNow"), ids(f"{second}\n"), ids("<answer> Ka")], [FIRES]),
        "stopped elsewhere": ([[*ids(first), tokenizer.pad_token_id], ANSWER], [FIRES]),
        "documents cut": ([first, ANSWER], [FIRES, f"{ROLLOUT}.max_tool_response_length=60"]),
        # The second turn is so long that there is room for an E1 before it.
        "budget ends in a tool response": ([first, long_second, ANSWER], [FIRES]),
        "budget ends in a turn": ([first, long_second, ANSWER], [FIRES]),
        "no thinking": ([first, second, ANSWER], [FIRES, "data.apply_chat_template_kwargs.enable_thinking=false"]),
    }[case]


COMMON = ["several turns", "no E1 passes", "nothing shown", "sampled", "turns cut", "stopped elsewhere", "documents cut"]
COMMON += ["budget ends in a tool response", "budget ends in a turn"]
CASES = {"hermes": [*COMMON, "parallel calls", "malformed calls"], "search_tags": [*COMMON, "malformed tags"]}


def cases_of(family, dialect):
    more = ["no thinking"] if family == "qwen3" else []
    return [case for case in CASES[dialect] + more if not (family == "llama3" and case == "parallel calls")]


class Episode:
    """One case, played through the agent loop."""

    def __init__(self, flag, family, dialect, case):
        self.tokenizer = tokenizer_of(family)
        turns, overrides = script(case, dialect, self.tokenizer)
        self.config = OmegaConf.merge(flag, OmegaConf.from_dotlist([f"{ROLLOUT}.format={dialect}", *overrides]))
        if case.startswith("budget"):
            whole = self.run(family, turns)[0].response_mask
            calls = [i for i in range(1, len(whole)) if whole[i - 1] > whole[i]]
            ends = {"budget ends in a tool response": calls[1] + 20, "budget ends in a turn": calls[1] - 5}
            self.config.data.max_response_length = ends[case]
        self.output, self.server = self.run(family, turns)
        self.record = self.output.extra_fields["hiexp"]

    def run(self, family, turns):
        server = RecitingServer(self.tokenizer, turns)
        agent = agent_loop(HiExpAgentLoop, self.config, server, self.tokenizer, model_type(family))
        prompt = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
        return play(agent, raw_prompt=prompt, extra_info={"question_id": "val-1", "question": QUESTION}), server

    @property
    def ids(self):
        return self.output.prompt_ids + self.output.response_ids

    @property
    def mask(self):
        return [0] * len(self.output.prompt_ids) + self.output.response_mask


@pytest.fixture(scope="module", params=families())
def family(request):
    return request.param


@pytest.fixture(scope="module", params=FORMATS)
def dialect(request):
    return request.param


@pytest.fixture(scope="module")
def flag(tmp_path_factory):
    """What the flag sets, composed once: it takes longer than an episode."""
    folder = tmp_path_factory.mktemp("episodes")
    corpus, hek = write_corpus(folder / "corpus.jsonl"), write_hek(folder / "hek", "Name the country.")
    config = compose("+hiexp=grpo", f"hiexp.search.corpus={corpus}", f"hiexp.hek={hek}", "hiexp.search.top_k=1", "hiexp.prompt.top_k=5")
    OmegaConf.set_struct(config, False)  # for the template's arguments, which verl's config does not name
    return config


@pytest.fixture(scope="module")
def episodes(flag, family, dialect):
    return {case: Episode(flag, family, dialect, case) for case in cases_of(family, dialect)}


def template_turn_by_turn(episode):
    """Return ids and mask: after each turn comes what the template puts between that turn and the next."""
    tokenizer, written = episode.tokenizer, episode.server.written
    opening, answers = by_turn(episode.record["messages"])
    ids = encode(tokenizer, render(episode, opening))
    mask, history = [0] * len(ids), opening
    for turn, tools in zip_longest(written, answers, fillvalue=()):
        ids, mask = ids + turn, mask + [1] * len(turn)
        if tools:
            history = [*history, {"role": "assistant", "content": "@@"}, *tools]
            follows = encode(tokenizer, render(episode, history).rpartition("@@")[2])
            follows = follows[follows[0] == turn[-1] :]  # the turn holds its own end, unless it was cut
            ids, mask = ids + follows, mask + [0] * len(follows)
    limit = len(encode(tokenizer, render(episode, opening))) + episode.config.data.max_response_length
    return ids[:limit], mask[:limit]


def template_of_all_messages(episode):
    """Return ids: the whole list of messages rendered at once."""
    opening, answers = by_turn(episode.record["messages"])
    history = list(opening)
    for tools in answers:
        history += [{"role": "assistant", "content": "@@"}, *tools]
    first, *pieces = render(episode, history, add_generation_prompt=False).split("@@")
    ids = encode(episode.tokenizer, first)
    for turn, piece, tools in zip(episode.server.written, pieces, answers, strict=True):
        follows = encode(episode.tokenizer, piece)
        ids = ids + turn + (follows[follows[0] == turn[-1] :] if tools else [])
    return ids


def by_turn(messages):
    """Return the messages before the first turn, and the tool messages after each."""
    opening = [m for m in messages if m["role"] in ("system", "user")]
    answers = []
    for message in messages[len(opening) :]:
        if message["role"] == "assistant":
            answers.append([])
        else:
            answers[-1].append(message)
    return opening, answers


def render(episode, messages, add_generation_prompt=True):
    kwargs = episode.config.data.get("apply_chat_template_kwargs") or {}
    tools = [SEARCH_TOOL_SCHEMA]
    return episode.tokenizer.apply_chat_template(
        messages, tools=tools, tokenize=False, add_generation_prompt=add_generation_prompt, **kwargs
    )


def encode(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)


def test_every_episode_is_the_chat_template_turn_by_turn(episodes):
    for case, episode in episodes.items():
        ids, mask = template_turn_by_turn(episode)
        assert episode.tokenizer.decode(episode.ids) == episode.tokenizer.decode(ids), case
        assert episode.ids == ids, case
        assert episode.mask == mask, case
        assert len(episode.output.response_logprobs) == len(episode.output.response_ids)


def test_the_policy_writes_each_turn_after_what_the_trainer_has_before_it(episodes):
    for case, episode in episodes.items():
        for prompt, turn in zip(episode.server.prompts, episode.server.written, strict=True):
            assert episode.ids[: len(prompt)] == prompt, case
            kept = episode.ids[len(prompt) : len(prompt) + len(turn)]
            assert kept == turn[: len(kept)], case


def test_each_case_is_what_it_is_called(episodes, dialect):
    fired = {case: [row["search"] for row in e.record["shown"] if row["place"] == "tool"] for case, e in episodes.items()}
    counts = {case: (e.record["searches"], e.record["failed_searches"]) for case, e in episodes.items()}
    assert fired["several turns"] == [1, 2] and fired["no E1 passes"] == fired["nothing shown"] == []
    assert not episodes["nothing shown"].record["shown"] and episodes["no E1 passes"].record["shown"]
    assert fired["budget ends in a tool response"] == [1] and counts["budget ends in a tool response"] == (2, 0)
    assert episodes["budget ends in a tool response"].mask[-1] == episodes["budget ends in a turn"].mask[-1] == 1
    assert counts["budget ends in a turn"] == (1, 0) and len(episodes["budget ends in a turn"].server.written) == 2
    cut = episodes["documents cut"].record["messages"][3]["content"]
    assert cut.startswith("<experience>\n- ") and "\n</experience>\n" in cut and cut.endswith("...(truncated)"), "never the experience"
    assert counts["sampled"] == counts["turns cut"] == (2, 0) and counts["stopped elsewhere"] == (1, 0)
    tokenizer = episodes["sampled"].tokenizer
    assert encode(tokenizer, tokenizer.decode(episodes["sampled"].server.written[0])) != episodes["sampled"].server.written[0]
    if dialect == "hermes":
        assert counts["malformed calls"] == (4, 3)
        if "parallel calls" in counts:
            assert fired["parallel calls"] == [1, 2] and counts["parallel calls"] == (3, 0)
    else:
        assert counts["malformed tags"] == (1, 0)


def test_parallel_calls_under_llama_3_fail_where_verl_renders_the_call_anew(flag):
    """Llama 3's template knows one call per turn; verl 0.9.1 renders a stand-in of the calls, 0.9.0 the responses alone."""
    if hasattr(HiExpAgentLoop, "apply_chat_template"):
        assert Episode(flag, "llama3", "hermes", "parallel calls").record["searches"] == 3
    else:
        with pytest.raises(TemplateError, match="one call per turn"):
            Episode(flag, "llama3", "hermes", "parallel calls")


@pytest.mark.parametrize("room", range(-3, 2))
def test_verl_never_cuts_a_prompt_whose_template_takes_arguments(flag, room):
    whole = Episode(flag, "qwen3", "hermes", "no thinking")
    tight = OmegaConf.merge(flag, {"data": {"max_prompt_length": len(whole.output.prompt_ids) + room}})
    episode = Episode(tight, "qwen3", "hermes", "no thinking")
    shown = [row for row in episode.record["shown"] if row["place"] == "prompt"]
    assert episode.tokenizer.decode(episode.output.prompt_ids).startswith("<|im_start|>system\nAnswer the question.")
    assert len(shown) == (2 if room >= 0 else 1), "an entry that does not fit is dropped whole"


def test_rendering_all_messages_at_once_gives_the_same_except_where_the_template_rewrites_turns(episodes, family):
    for case, episode in episodes.items():
        if case.startswith("budget"):
            continue  # what the budget cuts off is in the messages
        same = template_of_all_messages(episode) == episode.ids
        # Qwen3 writes an empty thought before the last turn if it has none, and none before the others, where the policy began
        # its turns after what the generation prompt says. So a list rendered at once is not what the policy has seen.
        assert same == (family != "qwen3"), case


def test_the_tokens_are_those_of_the_golden_file(episodes, family, dialect):
    path = TOKENS / f"{family}.{dialect}.json"
    prompts = {case: episode.tokenizer.decode(episode.output.prompt_ids) for case, episode in episodes.items()}
    first = prompts["several turns"]
    found = {"prompt": first, **{case: summary(episode, prompts[case], first) for case, episode in episodes.items()}}
    if os.environ.get("HIEXP_WRITE_GOLDEN"):
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert found == json.loads(path.read_text(encoding="utf-8"))


def summary(episode, prompt, usual):
    """Return the episode as a person reads it (mask and text of each stretch), and a digest of its ids and mask."""
    pairs = list(zip(episode.output.response_ids, episode.output.response_mask, strict=True))
    stretches = [(mask, [i for i, _ in run]) for mask, run in groupby(pairs, key=lambda pair: pair[1])]
    return {
        "sha256": sha256(json.dumps([episode.ids, episode.mask]).encode()).hexdigest(),
        "tokens": [len(episode.output.prompt_ids), *(len(ids) for _, ids in stretches)],
        **({} if prompt == usual else {"prompt": prompt}),
        "response": [f"{mask} {episode.tokenizer.decode(ids)}" for mask, ids in stretches],
    }
