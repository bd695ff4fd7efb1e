"""The whole loop on a CPU: warm start, rollouts, HEK, GRPO and GSPO, validation, report."""
