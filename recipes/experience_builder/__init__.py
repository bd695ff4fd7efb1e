"""From rollouts to a HEK."""
