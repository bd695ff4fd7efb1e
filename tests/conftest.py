"""What all tests share: hypothesis profiles, and an environment without the user's settings."""

import os

from hypothesis import settings

# A loaded machine is slow, not wrong: no deadlines. `make test-all` sets HYPOTHESIS_PROFILE=long.
settings.register_profile("short", deadline=None, max_examples=25)
settings.register_profile("long", deadline=None, max_examples=300)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))

# Read by verl and by us: a user's own must not change what a test finds, nor what the processes do that it starts.
for name in ("VERL_PLATFORM", "VERL_FILE_LOGGER_PATH"):
    os.environ.pop(name, None)
