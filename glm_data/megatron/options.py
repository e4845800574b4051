"""The options of reading a checkpoint."""

from __future__ import annotations

from typing import Annotated

from glm_data.config import Config, Doc


class ImportOptions(Config, frozen=True, kw_only=True):
    """What a checkpoint of tensors does not say about its model."""

    heads: (
        Annotated[int, Doc("attention heads; needed if the checkpoint has no table of rotary frequencies", least=1)]
        | None
    ) = None
    tokenizer: Annotated[str | None, Doc("folder of the tokenizer that the model was trained with")] = None
