"""Focal loss and cross-entropy, ``(N, C) float32, (N,) int64 -> (N,) float32``: no reduction, no masking, no device."""
