"""HiExp for verl: search agents that learn from their own experience. Importing this imports neither verl nor torch."""

__version__ = "0.1.0"
