"""Benchmarks: `python -m tests.bench` measures our goals, each as a ratio of variants that took turns in one run."""
