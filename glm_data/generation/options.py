"""How the next token is chosen."""

from __future__ import annotations

import math
from typing import Annotated

from glm_data.config import Config, Doc
from glm_data.errors import ConfigError


class GenerationOptions(Config, frozen=True, kw_only=True):
    """How text is generated. The defaults are greedy: the same text every time."""

    temperature: Annotated[float, Doc("0 takes the likeliest token; above 0 draws, flatter the higher")] = 0.0
    top_k: Annotated[int, Doc("draw among this many likeliest tokens; 0 means all")] = 0
    top_p: Annotated[float, Doc("draw among the likeliest tokens that hold this share of the probability")] = 1.0
    seed: Annotated[int, Doc("seed of the draws")] = 0
    min_length: Annotated[int, Doc("tokens of an answer before it may end")] = 1
    max_length: Annotated[int, Doc("tokens of an answer at most")] = 64
    stop: Annotated[tuple[str, ...], Doc("an answer ends where it would hold this text, which is left out")] = ()
    beams: Annotated[int, Doc("above 1: beam search with so many beams, by mean log-probability; no draws")] = 1
    parallel: Annotated[bool, Doc("fill all blanks of a text at once, each without seeing the others' answers")] = False
    no_repeat_ngram: Annotated[int, Doc("an answer never holds the same n-gram of this length twice; 0 allows it")] = 3

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        for name in ("temperature", "top_k", "min_length", "no_repeat_ngram"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must not be negative.")
        if not math.isfinite(self.temperature):
            raise ConfigError(f"temperature is {self.temperature}; give a number.")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed is {self.seed}; it must be at least 0 and below 2^63.")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}; it must lie above 0 and not above 1.")
        if self.beams < 1:
            raise ConfigError(f"beams is {self.beams}; it must be at least 1.")
        if self.beams > 1 and self.temperature > 0:
            raise ConfigError("beams and temperature exclude each other: beam search draws nothing; give one of them.")
        if "" in self.stop:
            raise ConfigError("stop holds an empty text, which would end every answer at once; leave it out.")
        if self.max_length < max(1, self.min_length):
            raise ConfigError(f"max_length is {self.max_length}; it must be at least 1 and at least min_length.")
