"""Benchmarks against named peers, each measured in a process of its own; ``python -m benchmarks`` runs them all."""
