"""The Search-R1 dialect as a verl tool parser: `multi_turn.format=search_tags`."""

import json

from verl.experimental.agent_loop.tool_parser import FunctionCall, ToolParser
from verl.tools.schemas import OpenAIFunctionToolSchema
from verl.utils.ray_utils import get_event_loop

from hiexp_verl.protocol import SEARCH_TOOL_NAME, find_search


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
