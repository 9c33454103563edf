"""Fused kernels: the same numbers as the formulas in ``losses``, with one pass over the logits."""
