"""The search tool as a verl tool."""

import logging
from typing import Any

from verl.tools.base_tool import BaseTool
from verl.tools.schemas import OpenAIFunctionToolSchema, ToolResponse

from hiexp_verl.config import SearchConfig, parse_block
from hiexp_verl.errors import HiExpError
from hiexp_verl.plugin.retrieval import Retrieval, retrieval_for
from hiexp_verl.protocol import SEARCH_TOOL_SCHEMA, Format, check_format, query_in, render_documents, search_failed_message
from hiexp_verl.search import SearchFailed

logger = logging.getLogger(__name__)


class SearchTool(BaseTool):
    """Searches a corpus or a retrieval server.

    `HiExpAgentLoop` binds it to the settings of the `hiexp:` block. For verl's own `tool_agent` give them in the tool's
    YAML: `config: {type: native, format: hermes, search: {engine: bm25, corpus: ..., top_k: 5}}`.
    """

    def __init__(self, config: dict[str, Any], tool_schema: OpenAIFunctionToolSchema | None = None) -> None:
        super().__init__(config, tool_schema or OpenAIFunctionToolSchema.model_validate(SEARCH_TOOL_SCHEMA))
        self._settings = SearchConfig()
        self._format: Format = "hermes"
        self._retrieval: Retrieval | None = None
        if config.get("search"):
            settings = parse_block(SearchConfig, config["search"], "tools.search")
            self.bind(settings, config.get("format", "hermes"), retrieval_for(settings))

    @property
    def bound(self) -> bool:
        """Whether the tool knows where to search."""
        return self._retrieval is not None

    def bind(self, settings: SearchConfig, format: str, retrieval: Retrieval) -> None:
        """Set where to search and in which dialect to answer."""
        self._settings, self._format, self._retrieval = settings, check_format(format), retrieval

    async def execute(self, instance_id: str, parameters: dict[str, Any], **kwargs: Any) -> tuple[ToolResponse, float, dict]:
        """Return the answer to one search call; a failed search becomes a message to the model and is counted."""
        if self._retrieval is None:
            raise HiExpError("the search tool has no corpus; set hiexp.search.corpus, or search: in the tool's YAML")
        query = query_in(parameters)
        failed = 0
        if not query:
            text, failed = search_failed_message("the call has no query", self._format), 1
        else:
            try:
                passages = await self._retrieval.search(query, self._settings.top_k)
                settings = self._settings
                text = render_documents(passages, self._format, settings.max_words_per_passage, settings.max_chars)
            except SearchFailed as error:
                logger.warning("search failed: %s", error.reason)
                # Not str(error): an exception that crossed a Ray actor prints its whole traceback.
                text, failed = search_failed_message(error.reason, self._format), 1
        return ToolResponse(text=text), 0.0, {"search_failed": failed, "query": query}
