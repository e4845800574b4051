"""Vocabularies from corpora: words counted by language and source, weights, and training from the counts."""

from glm_data.vocabulary.options import CountOptions, TokenizerOptions

__all__ = ["CountOptions", "TokenizerOptions"]
