"""The search tool as a verl tool, and the parser of its calls in the Search-R1 dialect (`multi_turn.format=search_tags`)."""

import json
import logging
from typing import Any

from verl.experimental.agent_loop.tool_parser import FunctionCall, ToolParser
from verl.tools.base_tool import BaseTool
from verl.tools.schemas import OpenAIFunctionToolSchema, ToolResponse
from verl.utils.ray_utils import get_event_loop

from hiexp_verl.config import HiExpConfig, SearchConfig
from hiexp_verl.errors import HiExpError
from hiexp_verl.plugin.retrieval import Retrieval, retrieval_for
from hiexp_verl.protocol import (
    SEARCH_TOOL_NAME,
    SEARCH_TOOL_SCHEMA,
    Format,
    check_format,
    find_search,
    query_in,
    render_documents,
    search_failed_message,
)
from hiexp_verl.search import SearchFailed
from hiexp_verl.settings import parse_block

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
        self.retrieval: Retrieval | None = None  # until it is bound
        if config.get("search"):
            settings = parse_block(SearchConfig, config["search"], "tools.search")
            self.bind(settings, config.get("format", "hermes"), retrieval_for(HiExpConfig(enabled=False, search=settings)))

    def bind(self, settings: SearchConfig, format: str, retrieval: Retrieval) -> None:
        """Set where to search and in which dialect to answer."""
        self._settings, self._format, self.retrieval = settings, check_format(format), retrieval

    async def execute(self, instance_id: str, parameters: dict[str, Any], **kwargs: Any) -> tuple[ToolResponse, float, dict]:
        """Return the answer to one search call; a failed search becomes a message to the model and is counted."""
        if self.retrieval is None:
            raise HiExpError("the search tool has no corpus; set hiexp.search.corpus, or search: in the tool's YAML")
        query, settings = query_in(parameters), self._settings
        text, failed = search_failed_message("the call has no query", self._format), 1
        found: list[str] | None = None
        try:
            if query:
                passages = await self.retrieval.search(query, settings.top_k)
                text, failed = render_documents(passages, self._format, settings.max_words_per_passage, settings.max_chars), 0
                found = [passage.id for passage in passages]
        except SearchFailed as error:
            logger.warning("search failed: %s", error.reason)
            text = search_failed_message(error.reason, self._format)  # str(error) has a traceback when it crossed a Ray actor
        return ToolResponse(text=text), 0.0, {"search_failed": failed, "query": query, "passages": found}


@ToolParser.register("search_tags")
class SearchTagsParser(ToolParser):
    """Parses `<search>query</search>`; the rest of the turn is content."""

    async def extract_tool_calls(
        self, responses_ids: list[int], tools: list[OpenAIFunctionToolSchema] | None = None
    ) -> tuple[str, list[FunctionCall]]:
        """Return the turn's text, tags included, and at most one search call."""
        loop = get_event_loop()
        text = await loop.run_in_executor(None, lambda: self.tokenizer.decode(responses_ids, skip_special_tokens=True))
        query = find_search(text, "search_tags")
        if query is None:
            return text, []
        return text, [FunctionCall(name=SEARCH_TOOL_NAME, arguments=json.dumps({"query": query}, ensure_ascii=False))]
