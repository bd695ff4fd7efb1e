"""Rollouts without verl: one episode, many episodes, the policy that plays them."""
