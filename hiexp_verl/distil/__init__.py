"""Trajectories -> contrasts -> diagnoses -> E1 -> clusters -> E2 -> E3 -> a HEK: `spec.build` does all of it."""
