"""Offline self-distillation: the policy learns from itself, with a privilege in the teacher's context that the student does not have."""
