"""Measuring a model on packed rows: ``held_out.py``."""
