"""Questions and passages from public-domain facts: 2-hop questions with exact answers that one search cannot answer."""

from recipes.demo_data.factbook.sets import write_question_sets

__all__ = ["write_question_sets"]
