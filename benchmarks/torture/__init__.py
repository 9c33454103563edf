"""Faults that are injected and input that is hostile, in numbers: what the kit promises under them, and whether it holds.

python -m benchmarks.torture                         what there is
python -m benchmarks.torture NAME --count 50         that many trials of one experiment
python -m benchmarks.torture NAME --first 17 --count 1 --seed 0      repeat the trial that has failed
"""
