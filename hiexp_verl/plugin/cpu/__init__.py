"""verl on a CPU: platform, training engine, vLLM replica."""
