"""A HEK that proves its entries: proposals from new rollouts, a test inside groups of questions, publication or rejection."""
