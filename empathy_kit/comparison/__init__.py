"""Many runs: planned, executed several at once, read back, and reported on."""
