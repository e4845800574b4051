"""GLM, the network: a transformer that reads a text with blanks both ways and writes the blanks left to right.

::

    tokens_T ── embedding ──┬─────────────────────────────────────────────────────────────┐
                            │  N times:   h = LN(x);  x = alpha h + attention(h)            │ the same matrix,
    positions_T ── rotary ──┤             h = LN(x);  x = alpha h + GeGLU(h)                │ transposed
                            └── final LN ── only the positions that predict ── logits_PV ──┘

What makes it GLM-130B (GLM-130B paper, section 2.1, and the official code's layout):

- *DeepNorm*: layer norm after the residual, alpha = (2N)^1/2, written as a norm at each sub-layer's entry with the
  residual taken after it (LN(alpha x + f(x)) is the entry of the next), plus a final norm.
- *Rotary positions* over the whole head width, base 10000, halves rotated; positions are given, not counted: all
  tokens of a [MASK] span carry the position of their mask.
- *GeGLU*: of the two halves of the inner layer, x1 * gelu(x2).
- One fused query-key-value matrix, laid out per head: rows (head, q|k|v, head width).
- Biases everywhere, a tied output head, no position table.
- *Embedding gradient shrink*: only a share ``shrink`` of the gradient reaches the embedding, at the input and at the
  tied output, which keeps large models from diverging.

Switches (``config.py``) turn it into GLM-10B, of before: pre-norm (``x = x + f(LN(x))``), plain GELU, and *2-D
positions*, two learned tables: for the place in the text (a span stands where its mask is), for the place in the span.
Who sees whom is decided outside, by ``attend`` (``attention.py``; there also GLM-130B's way to take the softmax).

Shape letters: T tokens (of all pieces, one after the other), D hidden, H heads, K head width, F inner width,
V vocabulary, P positions that predict.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from glm_data.model.attention import Attend
from glm_data.model.config import ModelConfig
from glm_data.model.neighbours import neighbour_bias

LAYER_NORM_EPS = 1e-5

Rotary = tuple[Tensor, Tensor]
"""Cosines and sines of the tokens' angles, see :func:`rotary_table`."""


class GLM(nn.Module):
    """The network. ``GLM(config)`` leaves parameters as torch makes them; :func:`build` also initialises them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.shrink = config.shrink
        """Share of the gradient that reaches the embedding; a trainer may move it."""
        self.recompute = False
        """Keep of each layer only its input and compute the rest again on the way back (activation checkpointing)."""
        self.word_embeddings = TiedEmbedding(config.vocab, config.hidden)
        if config.positions == "learned-2d":
            self.position_embeddings = nn.Embedding(config.longest, config.hidden)
            self.block_position_embeddings = nn.Embedding(config.longest, config.hidden)
        self.layers = nn.ModuleList(Layer(config, number) for number in range(config.layers))
        self.final_layernorm = make_norm(config)

    def forward(self, tokens_T: Tensor, positions_T: Tensor, attend: Attend, predict_P: Tensor | None = None) -> Tensor:
        """Logits ``[P, V]`` at the places ``predict_P`` (int64, into T), or at all T tokens.

        ``positions_T`` is int64: the positions, or ``[2, T]`` with those within spans below them if they are 2-D.
        """
        return self.head(self.features(tokens_T, positions_T, attend, predict_P))

    def features(
        self, tokens_T: Tensor, positions_T: Tensor, attend: Attend, predict_P: Tensor | None = None
    ) -> Tensor:
        """What the head is applied to, ``[P, D]``.

        The head is the largest matrix of a small model, so it is applied only where something is predicted:
        15 % of a [MASK] row.
        """
        x_TD, rotary = self.embed(tokens_T, positions_T)
        for layer in self.layers:
            run = partial(checkpoint, layer, use_reentrant=False) if self.recompute else layer
            x_TD = run(x_TD, rotary, attend)
        x_PD = x_TD if predict_P is None else x_TD.index_select(0, predict_P)
        features_PD: Tensor = self.final_layernorm(x_PD)
        return features_PD

    def embed(self, tokens_T: Tensor, positions_T: Tensor) -> tuple[Tensor, Rotary | None]:
        """What the first layer gets, ``[T, D]``, and the rotary table of all layers if positions are rotary."""
        x_TD = self.word_embeddings.look_up(tokens_T, self.shrink)
        if self.config.positions == "rotary":
            return x_TD, rotary_table(positions_T, self.config, x_TD.dtype)
        tables_TD = self.position_embeddings(positions_T[0]) + self.block_position_embeddings(positions_T[1])
        return x_TD + tables_TD, None

    def head(self, x_PD: Tensor) -> Tensor:
        """The tied output: scores of every token id, ``[P, V]``."""
        return self.word_embeddings.scores(x_PD, self.shrink)

    def head_weight(self) -> Tensor:
        """The matrix of the head ``[V, D]``: the embedding, its gradient shrunk here as at the input."""
        return shrink_gradient(self.word_embeddings.weight, self.shrink)


class TiedEmbedding(nn.Embedding):
    """The one matrix of both ends; only a ``share`` of its gradient comes back through either."""

    def look_up(self, tokens_T: Tensor, share: float) -> Tensor:
        """Rows by token, ``[T, D]``."""
        return F.embedding(tokens_T, shrink_gradient(self.weight, share))

    def scores(self, x_PD: Tensor, share: float) -> Tensor:
        """Products with all rows, ``[P, V]``."""
        return F.linear(x_PD, shrink_gradient(self.weight, share))


class Layer(nn.Module):
    """One transformer layer: attention and feed-forward, each behind a layer norm."""

    def __init__(self, config: ModelConfig, number: int) -> None:
        super().__init__()
        self.deepnorm = config.norm == "deepnorm"
        self.alpha = config.deepnorm_alpha
        self.input_layernorm = make_norm(config)
        self.attention = Attention(config, number)
        self.post_attention_layernorm = make_norm(config)
        self.mlp = FeedForward(config)

    def forward(self, x_TD: Tensor, rotary: Rotary | None, attend: Attend) -> Tensor:
        """The residual stream after this layer, ``[T, D]``."""
        h_TD = self.input_layernorm(x_TD)
        x_TD = self._add(x_TD, h_TD, self.attention(h_TD, rotary, attend))
        h_TD = self.post_attention_layernorm(x_TD)
        return self._add(x_TD, h_TD, self.mlp(h_TD))

    def _add(self, x_TD: Tensor, h_TD: Tensor, update_TD: Tensor) -> Tensor:
        # DeepNorm is post-norm: what goes on is the *normed* residual times alpha. Pre-norm goes on with the raw one.
        return torch.add(update_TD, h_TD, alpha=self.alpha) if self.deepnorm else x_TD + update_TD


class Attention(nn.Module):
    """Multi-head attention with one fused query-key-value matrix, laid out per head."""

    def __init__(self, config: ModelConfig, number: int) -> None:
        super().__init__()
        self.number, self.head_dim, self.dropout = number, config.head_dim, config.dropout
        self.query_key_value = nn.Linear(config.hidden, 3 * config.hidden)
        self.dense = nn.Linear(config.hidden, config.hidden)

    def forward(self, h_TD: Tensor, rotary: Rotary | None, attend: Attend) -> Tensor:
        """What attention adds, ``[T, D]``."""
        qkv_TH3K = self.query_key_value(h_TD).unflatten(-1, (-1, 3, self.head_dim))
        qk_TH2K = qkv_TH3K[:, :, :2] if rotary is None else rotate(qkv_TH3K[:, :, :2], *rotary)
        o_THK = attend(self.number, qk_TH2K[:, :, 0], qk_TH2K[:, :, 1], qkv_TH3K[:, :, 2])
        return F.dropout(self.dense(o_THK.flatten(1)), self.dropout, self.training)


class FeedForward(nn.Module):
    """GeGLU: half of the inner layer gates the other. Or one half only, through GELU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gated, self.dropout = config.feed_forward == "geglu", config.dropout
        self.approximate = "tanh" if config.feed_forward == "gelu-tanh" else "none"
        self.dense_h_to_4h = nn.Linear(config.hidden, config.ffn * (2 if self.gated else 1))
        self.dense_4h_to_h = nn.Linear(config.ffn, config.hidden)

    def forward(self, h_TD: Tensor) -> Tensor:
        """What the feed-forward adds, ``[T, D]``."""
        inner = self.dense_h_to_4h(h_TD)
        x1_TF, x2_TF = inner.chunk(2, dim=-1) if self.gated else (1, inner)
        return F.dropout(
            self.dense_4h_to_h(x1_TF * F.gelu(x2_TF, approximate=self.approximate)), self.dropout, self.training
        )


def make_norm(config: ModelConfig) -> nn.Module:
    """The norm at the entry of a sub-layer."""
    kind = nn.RMSNorm if config.norm == "rms" else nn.LayerNorm
    return kind(config.hidden, eps=LAYER_NORM_EPS)


def shrink_gradient(weight: Tensor, share: float) -> Tensor:
    """``weight`` itself going forward; going back, only ``share`` of its gradient (GLM-130B paper, section 3.3)."""
    return weight if share == 1 else torch.lerp(weight.detach(), weight, share)


def rotary_table(positions_T: Tensor, config: ModelConfig, dtype: torch.dtype) -> Rotary:
    """Cosines and sines of each token's angles, ``[T, 1, 1, K / 2]``, reckoned in float64."""
    half = config.head_dim // 2
    step = torch.arange(half, dtype=torch.float64, device=positions_T.device) / half
    angle = positions_T.to(torch.float64)[:, None] * config.rope_base**-step
    return angle.cos().to(dtype)[:, None, None], angle.sin().to(dtype)[:, None, None]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pair (i, i + K/2) of each head by its token's angle i; ``x`` is ``[T, H, ..., K]``."""
    x1, x2 = x.chunk(2, dim=-1)
    return torch.cat([x1 * cos - x2 * sin, x2 * cos + x1 * sin], dim=-1)


class _Valueless(TorchFunctionMode):
    """Draws no numbers: on the meta device nothing is there to fill, and trying imports two seconds of torch."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if getattr(func, "__module__", "") == nn.init.__name__ or func in (Tensor.normal_, Tensor.uniform_):
            return given["tensor"] if "tensor" in given else args[0]
        return func(*args, **given)


def valueless(config: ModelConfig) -> GLM:
    """A network on the meta device: shapes alone, to be given tensors or asked for their names."""
    with torch.device("meta"), _Valueless():
        return GLM(config)


def build(config: ModelConfig, seed: int) -> GLM:
    """A network with its starting weights, a function of ``config`` and ``seed`` alone.

    Xavier-normal matrices, zero biases, embedding N(0, ``embedding_std``). With DeepNorm the gain (2N)^-1/2 goes to
    the value, output and both feed-forward matrices and 1 to query and key; with pre-norm it goes to the matrices
    that write into the residual stream. Matrices fused into one are initialised as the matrices they are, so V gets
    its gain per head: a contiguous third of the fused matrix would be a third of the *heads*. Query and key biases may
    start with a taste for neighbouring tokens (``neighbours.py``).
    """
    model = GLM(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.children():
            if isinstance(module, nn.Embedding):
                module.weight.normal_(0, config.embedding_std, generator=generator)
        for layer in model.layers:
            _initialise(cast(Layer, layer), config, generator)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
        for number, layer in enumerate(model.layers):
            cast(Layer, layer).attention.query_key_value.bias.copy_(neighbour_bias(config, number))
    return model


def _initialise(layer: Layer, config: ModelConfig, generator: torch.Generator) -> None:
    width, beta = config.hidden, config.deepnorm_beta
    inner = beta if config.norm == "deepnorm" else 1.0
    qkv_H3KD = layer.attention.query_key_value.weight.view(config.heads, 3, config.head_dim, width)
    for part, gain in enumerate((1.0, 1.0, inner)):
        _xavier(qkv_H3KD[:, part], width, width, gain, generator)
    _xavier(layer.attention.dense.weight, width, width, beta, generator)
    _xavier(layer.mlp.dense_h_to_4h.weight, width, config.ffn, inner, generator)
    _xavier(layer.mlp.dense_4h_to_h.weight, config.ffn, width, beta, generator)


def _xavier(weight: Tensor, fan_in: int, fan_out: int, gain: float, generator: torch.Generator) -> None:
    deviation = gain * (2 / (fan_in + fan_out)) ** 0.5
    weight.copy_(torch.empty(weight.shape, dtype=weight.dtype).normal_(0, deviation, generator=generator))
