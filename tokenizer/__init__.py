"""A lossless bilingual tokenizer: SentencePiece with fixed task tokens, byte fallback and an identity of its own.

``train`` makes one, ``Tokenizer.load`` opens one. Encoding never loses a byte and never yields a task token from text.
"""

from tokenizer.errors import TokenizerError
from tokenizer.special import SPECIAL, SPECIAL_PIECES, Special
from tokenizer.tokenizer import DEFAULT_PAD_MULTIPLE, Tokenizer
from tokenizer.train import TrainOptions, check_options, train

__all__ = [
    "DEFAULT_PAD_MULTIPLE",
    "SPECIAL",
    "SPECIAL_PIECES",
    "Special",
    "Tokenizer",
    "TokenizerError",
    "TrainOptions",
    "check_options",
    "train",
]
