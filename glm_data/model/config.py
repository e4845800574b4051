"""The shape of a GLM, its named presets, and counting its parameters without allocating them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from glm_data.config import Config, Doc, require_least, require_shares
from glm_data.errors import ConfigError, did_you_mean

EMBEDDING_STD_130B = 0.0052


class ModelConfig(Config, frozen=True, kw_only=True):
    """Everything that decides the network; saved as ``config.json`` beside the weights."""

    vocab: Annotated[int, Doc("token ids, padding included; the tokenizer's size")]
    layers: Annotated[int, Doc("transformer layers")]
    hidden: Annotated[int, Doc("width of the residual stream")]
    heads: Annotated[int, Doc("attention heads; hidden / heads must be even")]
    ffn: Annotated[int, Doc("inner width of the GeGLU, counted once")]
    norm: Annotated[
        Literal["deepnorm", "pre", "rms"], Doc("deepnorm as GLM-130B, pre-norm, or pre-norm by RMSNorm")
    ] = "deepnorm"
    feed_forward: Annotated[
        Literal["geglu", "gelu", "gelu-tanh"],
        Doc("geglu as GLM-130B; gelu without a gate, or its approximation by tanh (GLM-10B)"),
    ] = "geglu"
    positions: Annotated[
        Literal["rotary", "learned-2d"], Doc("rotary as GLM-130B, or two learned tables (GLM-10B)")
    ] = "rotary"
    longest: Annotated[int, Doc("places of each learned table, the first for 0")] = 1025
    softmax: Annotated[
        Literal["fused", "glm-130b"],
        Doc("fused kernels, or GLM-130B's own: scores divided by the layer's number, float32 softmax of them times it"),
    ] = "fused"
    shrink: Annotated[float, Doc("share of the gradient that reaches the embedding (GLM-130B: 0.1)")] = 0.1
    embedding_std: Annotated[float, Doc("standard deviation of the embedding at the start")] = EMBEDDING_STD_130B
    neighbours: Annotated[float, Doc("how strongly heads look at the next tokens at the start (GLM-130B: 0)")] = 0.0
    dropout: Annotated[float, Doc("dropout on attention weights and on what each layer adds")] = 0.0
    rope_base: Annotated[float, Doc("base of the rotary position embedding")] = 10000.0

    def __post_init__(self) -> None:
        """Refuse shapes that cannot be built."""
        require_least(self, 1, "vocab", "layers", "hidden", "heads", "ffn", "longest", where="model.")
        require_least(self, 0, "neighbours", where="model.")
        require_shares(self, "shrink", where="model.")
        if self.hidden % (2 * self.heads):
            raise ConfigError(
                f"model.hidden {self.hidden} does not split into {self.heads} heads of even width; "
                "choose hidden as a multiple of 2 x heads."
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout is {self.dropout}; it must lie in [0, 1).")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads

    @property
    def deepnorm_alpha(self) -> float:
        """(2N)^1/2: what the residual is multiplied by (GLM-130B paper, section 2.1)."""
        return float((2 * self.layers) ** 0.5)

    @property
    def deepnorm_beta(self) -> float:
        """(2N)^-1/2: Xavier gain of the value, output and feed-forward matrices (GLM-130B paper, section 2.1)."""
        return float((2 * self.layers) ** -0.5)


VOCAB_130B = 150528


def _of_130bs_form(layers: int, hidden: int, heads: int, ffn: int) -> ModelConfig:
    return ModelConfig(vocab=VOCAB_130B, layers=layers, hidden=hidden, heads=heads, ffn=ffn, dropout=0.1)


PRESETS = {
    # The start of these two is chosen for runs of minutes, see lab-notes.
    "tiny": ModelConfig(vocab=4096, layers=2, hidden=96, heads=2, ffn=256, embedding_std=0.1, neighbours=12.0),
    "small": ModelConfig(
        vocab=8192, layers=4, hidden=192, heads=4, ffn=512, norm="pre", shrink=1.0, embedding_std=0.1, neighbours=12.0
    ),
    # Depths and widths of the GLM paper (table 6 and its 10B model); their feed-forward is a GeGLU of 8/3 hidden,
    # rounded up to 64, which costs what their plain 4 x hidden did.
    "110m": _of_130bs_form(12, 768, 12, 2048),
    "335m": _of_130bs_form(24, 1024, 16, 2752),
    "2b": _of_130bs_form(36, 2048, 32, 5504),
    "10b": _of_130bs_form(48, 4096, 64, 10944),
    "130b": _of_130bs_form(70, 12288, 96, 32768),
    # Du et al. 2022 and its published configuration: 9.87 B parameters.
    "glm-10b": ModelConfig(
        vocab=50304, layers=48, hidden=4096, heads=64, ffn=16384, norm="pre", feed_forward="gelu-tanh",
        positions="learned-2d", shrink=1.0, embedding_std=0.02, dropout=0.1,
    ),
}  # fmt: skip
"""Models by name: ``tiny`` trains in a minute on a CPU, ``small`` in half an hour; ``110m`` to ``130b`` are of
GLM-130B's form; ``glm-10b`` is the published model of before: pre-norm, plain GELU, two learned tables of positions."""


def preset(name: str, vocab: int | None = None) -> ModelConfig:
    """The model of that name; ``vocab`` replaces its vocabulary size.

    Raises :class:`ConfigError` for an unknown name.
    """
    if name not in PRESETS:
        raise ConfigError(
            f"there is no model preset '{name}'.{did_you_mean(name, PRESETS)} Known: {', '.join(PRESETS)}."
        )
    return msgspec.structs.replace(PRESETS[name], vocab=vocab or PRESETS[name].vocab)


def layer_parameters(config: ModelConfig) -> int:
    """Number of parameters of one layer."""
    width, inner = config.hidden, config.ffn
    entry = inner * (2 if config.feed_forward == "geglu" else 1)
    attention = (3 * width * width + 3 * width) + (width * width + width)
    feed_forward = (width * entry + entry) + (inner * width + width)
    return 2 * _norm_parameters(config) + attention + feed_forward


def count_parameters(config: ModelConfig) -> int:
    """Number of parameters, by arithmetic: 128.70 B for ``preset("130b")``.

    The output head is the embedding's transpose and counts once.
    """
    tables = 2 * config.longest * config.hidden if config.positions == "learned-2d" else 0
    return config.layers * layer_parameters(config) + _norm_parameters(config) + config.vocab * config.hidden + tables


def _norm_parameters(config: ModelConfig) -> int:
    return config.hidden * (1 if config.norm == "rms" else 2)
