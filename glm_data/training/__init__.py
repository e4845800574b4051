"""The training loop: ``loop.py`` is the page to read, ``stage.py`` its shell."""
