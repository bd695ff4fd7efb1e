"""Models: encoder, chat clients, vLLM processes."""
