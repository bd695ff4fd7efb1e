"""An agent made with a plain OpenAI-compatible client, with experience."""
