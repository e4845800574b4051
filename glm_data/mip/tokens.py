"""How many tokens a text has: exactly, by a tokenizer, or estimated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from glm_data.errors import UsageError
from tokenizer import Tokenizer, TokenizerError

_TOKENS_A_CHARACTER = 0.3
"""Of text that is not Chinese; Chinese counts a token a character. Both are a little high for trained tokenizers."""


class TokenCounter:
    """Counts tokens by the tokenizer in ``folder``; without one it estimates them from characters and bytes.

    Raises :class:`UsageError` if there is no tokenizer in ``folder``.
    """

    def __init__(self, folder: str = "") -> None:
        self._tokenizer: Tokenizer | None = None
        if folder:
            try:
                self._tokenizer = Tokenizer.load(folder)
            except TokenizerError as error:
                raise UsageError(str(error)) from None

    @property
    def fingerprint(self) -> str:
        """The tokenizer's identity, for plans; empty for estimates."""
        return self._tokenizer.fingerprint if self._tokenizer else ""

    def count(self, text: str) -> int:
        """Tokens of one text."""
        return estimate_tokens(text) if self._tokenizer is None else len(self._tokenizer.encode(text))

    def count_all(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Tokens of each text, ``int64[n]``."""
        if self._tokenizer is None:
            return np.fromiter(map(estimate_tokens, texts), np.int64, len(texts))
        return np.diff(self._tokenizer.encode_batch(texts)[1])


def estimate_tokens(text: str) -> int:
    """A guess that needs no tokenizer: characters of three bytes count 1, as Chinese ones are, others 0.3."""
    wide = (len(text.encode("utf-8", "surrogatepass")) - len(text)) // 2
    return wide + int((len(text) - wide) * _TOKENS_A_CHARACTER) + 1
