"""GRPO with rounds of self-distillation, on a CPU."""
