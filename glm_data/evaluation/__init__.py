"""Measuring a model: on packed rows (``held_out.py``), and in tasks of files (``suite.py``)."""
