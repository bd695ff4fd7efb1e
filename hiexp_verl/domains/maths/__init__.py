"""Mathematics: answers in `\\boxed{}`, scored by math-verify in processes of their own; what went wrong in a derivation."""
