"""Experience in use: the episode format, what is shown where, and rollouts without verl."""
