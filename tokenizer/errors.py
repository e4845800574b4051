"""The one error of this package."""

from __future__ import annotations


class TokenizerError(ValueError):
    """A model, a corpus or options that cannot be used; one sentence that ends with what to do."""
