"""One HTML page about trainings, evaluations and rollouts."""

from hiexp_verl.report.page import write_report

__all__ = ["write_report"]
