"""A policy that writes one derivation, token by token, and stops where it is asked to: in verl's loop and behind a chat client."""

from hiexp_verl.hek import Header
from hiexp_verl.hek.store import HEK
from hiexp_verl.models.chat import Reply
from hiexp_verl.models.encoder import HashEncoder
from tests.support.factories import entry

QUESTION = "Ann has 48 clips and sells half of them. How many are left?"
PARAGRAPHS = ["Half of 48 is 24.\n\n", "48 - 24 = 24.\n\n", "So 24 are left:\n\n", "\\boxed{24}"]
ADVICE = ("Write what each number counts.", "Check each result by its inverse.")
BLOCKS = [f"<experience>\n- {text}\n</experience>\n" for text in ADVICE]


def write_maths_hek(root, *advice):
    """Write a HEK of two E1, one E2 and one E3; the first E1 is the nearest to the question."""
    entries = (
        entry("e1-a", "e1", "X has N clips and sells half of them. How many are left?", (advice or ADVICE)[0]),
        entry("e1-b", "e1", "X has N clips. How many are left?", (advice or ADVICE)[-1]),
        entry("e2-a", "e2", "How many are left?", "Name each quantity.", children=("e1-a", "e1-b")),
        entry("e3-a", "e3", "Stories", "Read the question again.", children=("e2-a",)),
    )
    encoder = HashEncoder()
    vectors = encoder.encode_passages([each.title for each in entries])
    HEK(Header(encoder.identity, domain="maths"), entries, vectors).save(root)
    return root


def tokens_of(tokenizer, paragraphs):
    """Return the ids of a derivation as they are where a block follows each paragraph: some split a blank line before a word."""
    *others, last = paragraphs
    mark = tokenizer.encode("<", add_special_tokens=False)
    followed = [tokenizer.encode(f"{text}<", add_special_tokens=False) for text in others]
    assert all(ids[-1:] == mark for ids in followed)
    return [*(token for ids in followed for token in ids[:-1]), *tokenizer.encode(last, add_special_tokens=False)]


class Deriving:
    """Writes these ids and ends its turn; `prompts` and `asked` are what it was given, a request each."""

    model = "deriving"

    def __init__(self, tokenizer, ids):
        self.tokenizer, self.left = tokenizer, [*ids, tokenizer.eos_token_id]
        self.prompts, self.asked = [], []

    def write(self, stop, limit):
        written = []
        while self.left and (limit is None or len(written) < limit):
            written.append(self.left.pop(0))
            if any(mark in self.tokenizer.decode(written) for mark in stop or ()):
                return written, "stop"
        return written, "length" if self.left else "stop"

    async def generate(self, request_id, *, prompt_ids, sampling_params, **_):
        from verl.workers.rollout.replica import TokenOutput

        self.prompts.append(list(prompt_ids))
        self.asked.append(dict(sampling_params))
        ids, _ = self.write(sampling_params.get("stop"), sampling_params.get("max_tokens"))
        extra = {"global_steps": 1, "min_global_steps": 1, "max_global_steps": 1}
        return TokenOutput(token_ids=ids, log_probs=[-0.5] * len(ids), stop_reason="completed", extra_fields=extra)

    async def chat(self, messages, *, max_tokens, stop=None, **options):
        self.prompts.append([dict(message) for message in messages])
        self.asked.append({"max_tokens": max_tokens, "stop": stop, **options})
        ids, finish = self.write(stop, max_tokens)
        return Reply(self.tokenizer.decode(ids, skip_special_tokens=True), finish, len(ids))
