"""What experience did: a row for every rollout that was trained, credit of entries, and the gate of a new version."""
