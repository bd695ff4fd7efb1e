"""BM25 in this process (bm25s, numpy only). 11,000 passages: about 1 s to index, under 1 ms per query."""

import logging
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hiexp_verl.errors import HiExpError, first_line
from hiexp_verl.io.files import cache_dir, make_folder
from hiexp_verl.search import Ranking, best_rows, digest_of_passages
from hiexp_verl.text import folded, spaced
from hiexp_verl.types import Passage

if TYPE_CHECKING:
    import bm25s

logger = logging.getLogger(__name__)

KEPT_FROM = 20_000  # passages: their index is kept in the cache, under a hash of the corpus
_VERSION = "4"  # of `_words`

# One letter is a word too: "vitamin C", "Malcolm X". Marks belong to the letter before them: vowels of Hindi, Tamil or Arabic.
_MARKS = "".join(chr(c) for c in range(0x300, 0x10000) if unicodedata.category(chr(c)) in ("Mn", "Mc"))
_WORD = re.compile(rf"[\w{_MARKS}]+")
# A word of one character, alone or with a Korean particle, is found inside the pairs of a passage, where each stands alone, too.
_SINGLE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\U00020000-\U0003ffff]")
_WITH_PARTICLE = re.compile(r"\b([\uac00-\ud7a3])[은는이가을를에의도로와과만]\b")


class BM25Search:
    """BM25 (Lucene's variant, k1 1.5, b 0.75) over title and text.

    English stop words are left out, accents folded; no stemmer, so that results are equal on every machine. Scripts without
    spaces between words, and Korean, are indexed by pairs of characters. The index of a large corpus is kept and memory-mapped.

    Raises:
        HiExpError: the corpus has no passage with a word in it.
    """

    def __init__(self, passages: Sequence[Passage], cache: Path | None = None) -> None:
        from bm25s.stopwords import STOPWORDS_EN

        self._passages = list(passages)
        self._stopwords = frozenset(STOPWORDS_EN)
        # A small corpus is indexed faster than an index is checked.
        kept = (cache or cache_dir() / "bm25") / digest_of_passages(self._passages, _VERSION) if len(passages) >= KEPT_FROM else None
        self._index = (kept and self._load(kept)) or self._build(kept)

    def _build(self, kept: Path | None) -> "bm25s.BM25":
        import bm25s

        tokens = [self._words(f"{p.title} {p.text}", _SINGLE) for p in self._passages]
        if not any(tokens):
            raise HiExpError(f"the corpus of {len(self._passages)} passages has no words to search; give passages with text")
        index = bm25s.BM25(backend="numpy", csc_backend="numpy")
        index.index(tokens, show_progress=False)
        if kept is not None:
            make_folder(kept.parent)
            # Fails where another process was faster, or the disk is full.
            with tempfile.TemporaryDirectory(dir=kept.parent) as folder, suppress(OSError):
                index.save(folder, show_progress=False)
                Path(folder).rename(kept)
                Path(folder).mkdir()  # for its removal
        return index

    def _load(self, kept: Path) -> "bm25s.BM25 | None":
        """Return the index of an earlier run, memory-mapped: processes share it."""
        import bm25s

        if not kept.is_dir():
            return None
        try:
            index = bm25s.BM25.load(kept, mmap=True)
        except Exception as error:  # whatever a damaged file makes numpy or JSON raise
            logger.warning("the index %s is damaged (%s); indexing the corpus again", kept, first_line(error))
            shutil.rmtree(kept, ignore_errors=True)
            return None
        return index if index.scores["num_docs"] == len(self._passages) else None

    def search(self, queries: Sequence[str], top_k: int) -> list[Ranking]:
        """Return at most `top_k` passages that share a word with the query."""
        return [self._rank(query, top_k) for query in queries]

    def _rank(self, query: str, top_k: int) -> Ranking:
        words = [word for word in self._words(query, _WITH_PARTICLE) if word in self._index.vocab_dict]
        if not words:
            return []
        scores_P = self._index.get_scores(words)
        return [(self._passages[row], float(scores_P[row])) for row in best_rows(scores_P, top_k) if scores_P[row] > 0]

    def _words(self, text: str, alone: re.Pattern[str]) -> list[str]:
        """Return the words of a text, and what of it counts as a word alone."""
        plain = folded(text.lower())
        single = [] if plain.isascii() else alone.findall(plain)
        return [word for word in _WORD.findall(spaced(plain)) if word not in self._stopwords] + single
