"""Questions of mathematics: gsm8k, MATH-500, and problems that are generated with their answers."""

from recipes.demo_data.maths.sets import write_maths_sets

__all__ = ["write_maths_sets"]
