"""The packer's options: presets, every knob of them named with its unit, and what may not be combined."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from glm_data.config import Config, Doc
from glm_data.errors import UsageError
from glm_data.packing.mixing import SourceMix

Boundaries = Literal["stream", "documents"]

PRESETS: dict[str, dict[str, Any]] = {
    "glm-130b": {"boundaries": "stream", "mask_share": 0.3, "gmask_least": 0.2, "short_share": 0.02, "windows": 4},
    "documents": {"boundaries": "documents", "mask_share": 0.3, "gmask_least": 0.2, "short_share": 0.0, "windows": 1},
    "prefix": {"boundaries": "documents", "mask_share": 0.0, "gmask_least": 0.0, "short_share": 0.0, "windows": 1},
    "causal": {"boundaries": "documents", "mask_share": 0.0, "gmask_least": 1.0, "short_share": 0.0, "windows": 1},
}
"""What each preset sets; a knob that is given goes before the preset's.

``glm-130b`` is the published recipe (GLM-130B paper, sections 2.2-2.3 and table 11): running text cut anywhere, one
mask kind a row, [MASK] rows in four windows. ``documents`` is for new work: no piece crosses a document, pieces are
packed best-fit and see nothing of each other, a text that ends inside a piece ends with <eop>. ``prefix`` is
[gMASK] alone with a uniform prefix, ``causal`` with an empty one: a plain left-to-right language model.
"""


class PackOptions(Config, frozen=True):
    """How documents become rows."""

    preset: Annotated[
        Literal["glm-130b", "documents", "prefix", "causal"], Doc("recipe that sets what is not given")
    ] = "documents"
    seq_length: Annotated[int, Doc("tokens a row")] = 2048
    boundaries: Annotated[
        Boundaries | None, Doc("stream: running text cut anywhere; documents: no piece crosses a document")
    ] = None
    mask_share: Annotated[float | None, Doc("share of text pieces with [MASK] spans; the others are [gMASK]")] = None
    mask_rate: Annotated[float, Doc("share of a [MASK] piece's tokens to mask, at least")] = 0.15
    span_mean: Annotated[float, Doc("mean of the Poisson of span lengths, before truncating zero")] = 3.0
    span_longest: Annotated[int, Doc("longest span, tokens")] = 39
    gmask_least: Annotated[
        float | None, Doc("least share of a [gMASK] piece to generate; uniform from there to all")
    ] = None
    short_share: Annotated[float | None, Doc("share of [MASK] pieces cut to a random shorter length")] = None
    single_span_share: Annotated[float, Doc("share of [MASK] pieces with one span only")] = 0.02
    windows: Annotated[int | None, Doc("windows of a [MASK] row, one piece each (stream)")] = None
    mix: Annotated[dict[str, SourceMix], Doc("sources: pattern -> epochs, weight or share")] = msgspec.field(
        default_factory=dict
    )
    use_duplicates: Annotated[bool, Doc("use a kept document as often as it stood in the corpus")] = False
    max_epochs: Annotated[float, Doc("how often a document may be used at most")] = 4.0
    mip_ratio: Annotated[float | None, Doc("share of packed tokens that is MIP; 0.05 when MIP rows are given")] = None
    mip_window: Annotated[int, Doc("longest MIP piece, tokens (at most a row); longer prompts lose their end")] = 512
    mip_repeats: Annotated[int, Doc("how often one MIP sample may be used at most to reach the ratio")] = 4
    seed: Annotated[int, Doc("seed of every random choice")] = 1234
    rows_per_shard: Annotated[int, Doc("rows of a shard; only the last one is shorter")] = 8192


class Recipe(Config, frozen=True):
    """:class:`PackOptions` with every knob decided."""

    seq_length: int
    boundaries: Boundaries
    mask_share: float
    mask_rate: float
    span_mean: float
    span_longest: int
    gmask_least: float
    short_share: float
    single_span_share: float
    windows: int
    mix: dict[str, SourceMix]
    use_duplicates: bool
    max_epochs: float
    mip_ratio: float | None
    mip_window: int
    mip_repeats: int
    seed: int
    rows_per_shard: int


def resolve(options: PackOptions) -> Recipe:
    """Fill in the preset and check; raises :class:`UsageError` naming the option, its range and the cure."""
    given = {name: value for name, value in msgspec.to_builtins(options).items() if value is not None}
    preset = given.pop("preset")
    recipe = msgspec.convert({"mip_ratio": None, **PRESETS[preset], **given}, Recipe)
    _check_ranges(recipe)
    if recipe.boundaries == "documents" and recipe.windows != 1:
        raise UsageError(f"--windows {recipe.windows} is for --boundaries stream; leave it out or change one of them.")
    if recipe.boundaries == "documents" and recipe.short_share:
        raise UsageError("--short-share cuts windows of running text; leave it out or give --boundaries stream.")
    if recipe.seq_length % recipe.windows or recipe.seq_length // recipe.windows < _LEAST_WINDOW:
        raise UsageError(
            f"--windows {recipe.windows} does not divide --seq-length {recipe.seq_length} "
            f"into windows of {_LEAST_WINDOW} tokens or more; give another number."
        )
    return recipe


_LEAST_WINDOW = 32
_RANGES: dict[str, tuple[float, float]] = {
    "seq_length": (64, 65_535),
    "mask_share": (0, 1),
    "mask_rate": (0.01, 0.9),
    "span_mean": (0.1, 100),
    "span_longest": (1, 1000),
    "gmask_least": (0, 1),
    "short_share": (0, 1),
    "single_span_share": (0, 1),
    "windows": (1, 64),
    "max_epochs": (1, 1000),
    "mip_ratio": (0, 0.99),
    "mip_window": (8, 65_535),
    "mip_repeats": (1, 1000),
    "seed": (0, 2**63 - 1),
    "rows_per_shard": (1, 1 << 20),
}


def _check_ranges(recipe: Recipe) -> None:
    for name, (least, most) in _RANGES.items():
        value = getattr(recipe, name)
        if value is not None and not least <= value <= most:
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"{flag} {value} is out of range; give a number from {least} to {most}.")
