"""The options of quantising a model."""

from __future__ import annotations

from typing import Annotated, Literal

from glm_data.config import Config, Doc
from glm_data.errors import ConfigError


class QuantizeOptions(Config, frozen=True, kw_only=True):
    """How a trained model becomes INT4 or INT8."""

    bits: Annotated[int, Doc("bits a weight: 4 or 8")] = 4
    scale: Annotated[
        Literal["mse", "absmax"], Doc("rule for the scales: mse searches the least squared error, absmax is GLM-130B's")
    ] = "mse"
    group: Annotated[int, Doc("columns that share a scale: 0 for a whole row as GLM-130B, or 32, 64, 128, 256")] = 0
    embedding_bits: Annotated[
        int, Doc("bits a weight of the embedding, which is the output head as well: 8 (INT8 by rows) or 16 (FP16)")
    ] = 8
    calibration: Annotated[
        Literal["none", "activation", "feedback"],
        Doc(
            "look at the matrices' inputs on rows of a pack: activation weighs columns by them in the search for "
            "scales, feedback also makes good in later columns what earlier ones were rounded off by (GPTQ)"
        ),
    ] = "none"
    calibration_rows: Annotated[int, Doc("rows of the pack to look at", least=1)] = 32

    def __post_init__(self) -> None:
        """Refuse what no kernel knows."""
        if self.bits not in (4, 8):
            raise ConfigError(f"bits is {self.bits}; give 4 or 8.")
        if self.embedding_bits not in (8, 16):
            raise ConfigError(f"embedding_bits is {self.embedding_bits}; give 8 (INT8) or 16 (FP16).")
        if self.group not in (0, 32, 64, 128, 256):
            raise ConfigError(f"group is {self.group}; give 0 (a whole row), 32, 64, 128 or 256.")
