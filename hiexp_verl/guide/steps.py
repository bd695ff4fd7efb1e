r"""Where a derivation stops for experience: the second place of a domain without a tool (`hiexp.tool.steps`).

Between two steps the loop looks E1 up, adds the block to what the policy wrote, and the policy goes on in the same turn:

    48 clips and half of them are 24.\n\n<experience>\n- Write what each number counts.\n</experience>\nSo she sold 72 ...

Whoever plays the episode asks for at most `limit` tokens and ends at `stop`; `read` then says how it goes on.
"""

from hiexp_verl.config import ToolConfig
from hiexp_verl.domains.domain import Domain
from hiexp_verl.errors import HiExpError

PARAGRAPH, LINE = "\n\n", "\n"


def check_steps(tool: ToolConfig, domain: Domain) -> None:
    """Refuse stops in a domain whose second place is its tool.

    Raises:
        HiExpError: there are some.
    """
    if tool.steps and domain.tool is not None:
        fault = f"hiexp.tool.steps={tool.steps} stops between steps, and the domain {domain.name} shows E1 beside what its tool answers"
        raise HiExpError(f"{fault}; set it to 0")
    if tool.step_tokens and not tool.steps:
        raise HiExpError(f"hiexp.tool.step_tokens={tool.step_tokens} says where to stop, and hiexp.tool.steps=0 stops nowhere; set steps")


class Stops:
    """The stops of one episode; single use.

    A stop is after a paragraph, or with `step_tokens` at the first end of a line after so many tokens, never within a word.
    """

    def __init__(self, tool: ToolConfig, most: int) -> None:
        self.left = most  # stops that may still be made
        self._tokens = tool.step_tokens
        self._mark = LINE if tool.step_tokens else PARAGRAPH
        self._is_counting = bool(tool.step_tokens)
        self._step = ""  # what was written since the last stop

    @property
    def limit(self) -> int | None:
        """Most tokens of the next request, None: as many as there is room for."""
        return self._tokens if self.left and self._is_counting else None

    @property
    def stop(self) -> list[str]:
        """What ends the next request, and stays in its text."""
        return [self._mark] if self.left and not self._is_counting else []

    def end(self) -> None:
        """Stop no more: there is an answer."""
        self.left = 0

    def read(self, text: str, is_cut: bool) -> str | None:
        """Return the step that ends here, "" where the policy goes on without one, None where it has ended.

        Args:
            text: what the request brought.
            is_cut: `limit` ended it.
        """
        was_counting, self._is_counting = self._is_counting, False
        if not self.left or (was_counting and not is_cut):
            return None
        self._step += text
        if self._mark not in text[len(text.rstrip()) :]:  # a token may hold more than the mark
            return "" if was_counting else None
        step, self._step = self._step.strip(), ""
        self._is_counting = bool(self._tokens)
        self.left -= 1
        return step
