"""Serving a model: completions and infilling over HTTP, and a page to watch blanks filled."""
