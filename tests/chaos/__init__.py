"""A campaign of kills, parallel writers, mutations, full disks, odd command lines and fuzzed inputs; `python -m tests.chaos`."""
