"""Options of counting words and of training on them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from glm_data.config import Config, Doc
from glm_data.errors import ConfigError
from tokenizer import DEFAULT_PAD_MULTIPLE, TokenizerError, TrainOptions, check_options

Format = Literal["auto", "pile", "wudao", "jsonl", "parquet", "text"]


class CountOptions(Config, frozen=True, kw_only=True):
    """How words are counted."""

    format: Annotated[Format, Doc("format of the inputs")] = "auto"
    max_bad_fraction: Annotated[float, Doc("share of unreadable records from which the exit code is 3", 0, 1)] = 0.01


class TokenizerOptions(CountOptions, frozen=True, kw_only=True):
    """How a tokenizer is trained on documents."""

    vocab_size: Annotated[int, Doc("pieces, 512 to 150000, before padding")] = 32_000
    model_type: Annotated[Literal["bpe", "unigram"], Doc("algorithm of SentencePiece")] = "bpe"
    pad_multiple: Annotated[int, Doc("the vocabulary is padded to a multiple of this")] = DEFAULT_PAD_MULTIPLE
    character_coverage: Annotated[
        float, Doc("share of each writing system in each language whose characters get a piece")
    ] = 0.9999
    longest_han: Annotated[int, Doc("most Han characters in a piece, for small corpora; 0 means no limit")] = 0
    weights: Annotated[dict[str, float], Doc("share of the text's bytes by language; 'other' is all the rest")] = (
        msgspec.field(default_factory=lambda: {"zh": 0.5, "en": 0.5})
    )
    sources: Annotated[dict[str, float], Doc("how many times the text of a source counts within its language")] = (
        msgspec.field(default_factory=dict)
    )
    min_count: Annotated[int, Doc("words seen less often are left out, to save memory", 1)] = 1
    max_memory: Annotated[float, Doc("GB that training may use; 0 means 9/10 of what is free", 0)] = 0.0


def train_options(options: TokenizerOptions) -> TrainOptions:
    """The part that decides the model once words are counted and weighted."""
    return TrainOptions(
        vocab_size=options.vocab_size,
        model_type=options.model_type,
        pad_multiple=options.pad_multiple,
        character_coverage=options.character_coverage,
        longest_han=options.longest_han,
    )


def check(options: TokenizerOptions) -> None:
    """Raise :class:`ConfigError` for options that cannot be meant."""
    if not options.weights or min(options.weights.values()) < 0 or sum(options.weights.values()) <= 0:
        raise ConfigError(f"tokenizer: weights {options.weights} must be positive shares; give zh: 0.5 and en: 0.5.")
    if any(factor < 0 for factor in options.sources.values()):
        raise ConfigError(f"tokenizer: sources {options.sources} must be factors from 0 on; give 2 to count it twice.")
    try:
        check_options(train_options(options))
    except TokenizerError as error:
        raise ConfigError(f"tokenizer: {error}") from None
