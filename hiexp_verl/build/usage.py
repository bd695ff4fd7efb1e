"""What a distiller's answers took: calls, tokens, seconds, and the cost where a price is given."""

from dataclasses import dataclass

MILLION = 1_000_000


@dataclass(frozen=True)
class Price:
    """Cost of a million tokens, in whatever currency."""

    prompt: float
    completion: float

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return the cost of so many tokens."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / MILLION


@dataclass
class Usage:
    """Counts of one build. Stored answers cost nothing, and are not among the calls."""

    calls: int = 0
    repeated: int = 0  # of the calls: asked again, since the first answer was no entry
    stored: int = 0  # answers that were there already
    untold: int = 0  # of the calls: the server did not tell the tokens
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    def add(self, prompt_tokens: int, completion_tokens: int, repeated: bool) -> None:
        """Count one call."""
        self.calls += 1
        self.repeated += repeated
        self.untold += not completion_tokens
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens

    def summary(self, price: Price | None = None) -> str:
        """Return the counts on one line."""
        rate = self.completion_tokens / self.seconds if self.seconds else 0.0
        parts = [
            f"{self.calls:,} calls",
            *([f"{self.repeated:,} of them repeated"] if self.repeated else []),
            *([f"{self.stored:,} stored answers"] if self.stored else []),
            f"{self.prompt_tokens:,} prompt + {self.completion_tokens:,} completion tokens",
            *([f"without {self.untold:,} calls whose tokens the server did not tell"] if self.untold else []),
            f"{self.seconds:.0f} s",
            *([f"{rate:.0f} tokens/s"] if self.completion_tokens else []),
            *([f"cost {price.of(self.prompt_tokens, self.completion_tokens):.4f}"] if price else []),
        ]
        return ", ".join(parts)
