"""Speed and memory, as ratios against other programs in one run: ``python -m benchmarks``."""
