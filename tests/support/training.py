"""What tests that train have in common."""

PEARSON = "training/rollout_actor_probs_pearson_corr"
# One small run of the whole demo.
SMALL = ["--warm-start", "64", "--train", "16", "--k", "4", "--val", "8", "--steps", "2", "--gspo-steps", "1"]


# What a checkpoint keeps of a monitor that has seen nothing yet.
EMPTY_WATCH = {"counters": {}, "history": {"steps": [], "best": {}}, "expectation": {"steps": 0, "silent": []}, "triggered": []}
