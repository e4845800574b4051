"""The GLM network: ``model.py`` is the page to read, ``attention.py`` says who sees whom."""
