"""Rollouts by a policy that follows a script, with a HEK of four entries."""

from hiexp_verl.guide.episode import Guidance
from hiexp_verl.guide.guide import Guide
from hiexp_verl.hek import HEK, Header, Retriever
from hiexp_verl.models.chat import Reply
from hiexp_verl.models.encoder import HashEncoder
from hiexp_verl.rollout.episode import EpisodeSettings, Players
from hiexp_verl.rollout.rollout import Job, play
from hiexp_verl.search.bm25 import BM25Search
from tests.support.factories import entry, passage, question

SEARCH = BM25Search([passage(), passage("p2", "Rome", "Rome is the capital of Italy.")])


class Scripted:
    """Says the next line of its script in each turn of an episode; a callable line may raise."""

    model = "scripted"

    def __init__(self, *script, finish="stop"):
        self.script, self.finish = script, finish
        self.seeds, self.calls, self.closed = [], [], 0

    async def chat(self, messages, *, max_tokens, temperature=1.0, top_p=None, seed=None, stop=None):
        self.seeds.append(seed)
        self.calls.append(messages)
        line = self.script[sum(m["role"] == "assistant" for m in messages)]
        return Reply(line(seed) if callable(line) else line, self.finish, 3)

    async def close(self):
        self.closed += 1


def guide(leave_one_out=True, queries=None):
    entries = (
        entry("e1-own", "e1", "capital France", "Own lesson.", questions=("q1",)),
        entry("e1-other", "e1", "capital of France", "Other lesson.", questions=("q2",)),
        entry("e2-a", "e2", "capital", "Name the country first.", children=("e1-own", "e1-other"), questions=("q1", "q2")),
        entry("e3-a", "e3", "questions", "Search before you answer.", children=("e2-a",), questions=("q1", "q2")),
    )
    encoder = HashEncoder()
    header = Header(encoder.identity, thresholds={"tool_min_score": 0.5})
    vectors = encoder.encode_passages([e.title for e in entries])
    return Guide(Retriever(HEK(header, entries, vectors), queries or encoder), Guidance(leave_one_out=leave_one_out))


QUESTIONS = [question("q1"), question("q2", "What is the capital of Italy?", ("Rome",))]


def by_seed(seed):
    return f"<answer>{'Paris' if seed % 2 else 'Rome'}</answer>"


def run(out, client=None, k=3, **options):
    client = client or Scripted("<search>capital</search>", by_seed)
    return client, play(QUESTIONS, Players(client, SEARCH), Job(out, EpisodeSettings(), k, progress="", **options))
