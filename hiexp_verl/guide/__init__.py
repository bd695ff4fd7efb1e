"""Experience in use: which entries a question gets, in which arm, as what text, and what an episode has seen."""
