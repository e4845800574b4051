"""The packer's options: presets, every knob of them named with its unit, and what may not be combined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from glm_data.bans import DEFAULT as DEFAULT_BANS
from glm_data.bans import BansOption
from glm_data.config import Config, Doc, to_mapping
from glm_data.errors import UsageError
from glm_data.packing.mixing import SourceMix
from glm_data.packing.spans import length_table

Boundaries = Literal["stream", "documents"]
SpanBounds = Literal["tokens", "sentences"]
RatioOf = Literal["tokens", "sequences", "loss-tokens"]
Preset = Literal["glm-130b", "glm-10b", "documents", "prefix", "causal"]

_COMMON: dict[str, Any] = {
    "seq_length": 2048, "sentence_share": 0.0, "short_share": 0.0, "single_span_share": 0.02, "windows": 1
}  # fmt: skip
PRESETS: dict[Preset, dict[str, Any]] = {
    "glm-130b": _COMMON
    | {"boundaries": "stream", "mask_share": 0.3, "gmask_least": 0.2, "short_share": 0.02, "windows": 4},
    "glm-10b": _COMMON
    | {"boundaries": "stream", "mask_share": 0.5, "gmask_least": 0.25, "short_share": 0.02}
    | {"seq_length": 512, "sentence_share": 0.3, "single_span_share": 0.0},
    "documents": _COMMON | {"boundaries": "documents", "mask_share": 0.3, "gmask_least": 0.2},
    "prefix": _COMMON | {"boundaries": "documents", "mask_share": 0.0, "gmask_least": 0.0},
    "causal": _COMMON | {"boundaries": "documents", "mask_share": 0.0, "gmask_least": 1.0},
}
"""What each preset sets; a knob that is given goes before the preset's.

``glm-130b`` is the published recipe (GLM-130B paper, sections 2.2-2.3 and table 11): running text cut anywhere, one
mask kind a row, [MASK] rows in four windows. ``glm-10b`` has the shares of GLM-10B's training script: half [MASK],
0.3 [sMASK], the rest [gMASK] of at least a quarter, rows of 512. ``documents`` is for new work: no piece crosses a
document, pieces are packed best-fit and see nothing of each other, a text that ends inside a piece ends with <eop>.
``prefix`` is [gMASK] alone with a uniform prefix, ``causal`` with an empty one: a plain left-to-right language model.
"""


class PackOptions(Config, frozen=True):
    """How documents become rows."""

    preset: Annotated[Preset, Doc("recipe that sets what is not given")] = "documents"
    seq_length: Annotated[int | None, Doc("tokens a row")] = None
    boundaries: Annotated[
        Boundaries | None, Doc("stream: running text cut anywhere; documents: no piece crosses a document")
    ] = None
    mask_share: Annotated[
        float | None, Doc("share of text pieces (of text rows under stream) with [MASK] spans; what is left is [gMASK]")
    ] = None
    sentence_share: Annotated[float | None, Doc("the same for [sMASK], where whole sentences are masked")] = None
    mask_rate: Annotated[float, Doc("share of a [MASK] or [sMASK] piece's tokens to mask, at least")] = 0.15
    span_mean: Annotated[float, Doc("mean of the Poisson of span lengths, before truncating zero")] = 3.0
    span_longest: Annotated[int, Doc("longest span, tokens")] = 39
    span_bounds: Annotated[
        SpanBounds, Doc("sentences: no [MASK] span crosses a sentence end while a sentence has room for it")
    ] = "tokens"
    gmask_least: Annotated[
        float | None, Doc("least share of a [gMASK] piece to generate; uniform from there to all")
    ] = None
    short_share: Annotated[float | None, Doc("share of [MASK] pieces cut to a random shorter length")] = None
    single_span_share: Annotated[float | None, Doc("share of [MASK] pieces with one span only")] = None
    windows: Annotated[int | None, Doc("windows of a [MASK] or [sMASK] row, one piece each (stream)")] = None
    epochs: Annotated[int, Doc("mask sets to write, one an epoch; further ones can be drawn on reading")] = 1
    mix: Annotated[dict[str, SourceMix], Doc("sources: name or pattern -> epochs, weight or share")] = msgspec.field(
        default_factory=dict
    )
    languages: Annotated[dict[str, float], Doc("language -> share of text tokens, such as zh and en 0.5 each")] = (
        msgspec.field(default_factory=dict)
    )
    use_duplicates: Annotated[bool, Doc("use a kept document as often as it stood in the corpus")] = False
    max_epochs: Annotated[float, Doc("how often a document may be used at most")] = 4.0
    mip_ratio: Annotated[float | None, Doc("share of the pack that is MIP; 0.05 when MIP rows are given")] = None
    mip_ratio_of: Annotated[RatioOf, Doc("what the ratio counts: packed tokens, rows, or targets")] = "tokens"
    mip_ramp: Annotated[int, Doc("rows over which MIP rises from nothing to its ratio; 0 is none")] = 0
    mip_window: Annotated[
        int, Doc("longest zero-shot MIP piece, tokens (few-shot: a row); longer prompts lose their end")
    ] = 512
    mip_repeats: Annotated[int, Doc("how often one MIP sample may be used at most to reach the ratio")] = 4
    bans: BansOption = DEFAULT_BANS
    seed: Annotated[int, Doc("seed of every random choice")] = 1234
    rows_per_shard: Annotated[int, Doc("rows of a shard; only the last one is shorter")] = 8192


class Recipe(Config, frozen=True):
    """:class:`PackOptions` with every knob decided."""

    seq_length: int
    boundaries: Boundaries
    mask_share: float
    sentence_share: float
    mask_rate: float
    span_mean: float
    span_longest: int
    span_bounds: SpanBounds
    gmask_least: float
    short_share: float
    single_span_share: float
    windows: int
    epochs: int
    mix: dict[str, SourceMix]
    languages: dict[str, float]
    use_duplicates: bool
    max_epochs: float
    mip_ratio: float | None
    mip_ratio_of: RatioOf
    mip_ramp: int
    mip_window: int
    mip_repeats: int
    bans: str
    seed: int
    rows_per_shard: int

    @property
    def needs_sentences(self) -> bool:
        """Whether masks depend on where sentences end."""
        return self.sentence_share > 0 or self.span_bounds == "sentences"


def resolve(options: PackOptions) -> Recipe:
    """Fill in the preset and check; raises :class:`UsageError` naming the option, its range and the cure."""
    given = {name: value for name, value in msgspec.to_builtins(options).items() if value is not None}
    preset = given.pop("preset")
    recipe = msgspec.convert({"mip_ratio": None, **PRESETS[preset], **given}, Recipe)
    _check_ranges(recipe)
    for is_wrong, sentence in _COMBINATIONS:
        if is_wrong(recipe):
            raise UsageError(sentence.format(**to_mapping(recipe)))
    if recipe.seq_length % recipe.windows or recipe.seq_length // recipe.windows < _LEAST_WINDOW:
        raise UsageError(
            f"--windows {recipe.windows} does not divide --seq-length {recipe.seq_length} "
            f"into windows of {_LEAST_WINDOW} tokens or more; give another number."
        )
    _check_reach(recipe)
    return recipe


def _check_reach(recipe: Recipe) -> None:
    """Spans of mean length m with a token between them can mask m / (m + 1) of a text at most."""
    shares = np.diff(length_table(recipe.span_mean, recipe.span_longest).astype(float), prepend=0.0) / 2.0**32
    mean = float((shares * np.arange(1, recipe.span_longest + 1)).sum())
    if recipe.mask_rate > 0.98 * mean / (mean + 1):
        raise UsageError(
            f"--mask-rate {recipe.mask_rate} cannot be reached by spans of {mean:.2f} tokens with one between them; "
            f"give at most {0.98 * mean / (mean + 1):.2f}, or longer spans (--span-mean)."
        )


_COMBINATIONS: tuple[tuple[Callable[[Recipe], bool], str], ...] = (
    (
        lambda recipe: recipe.boundaries == "documents" and recipe.windows != 1,
        "--windows {windows} is for --boundaries stream; leave it out or change one of them.",
    ),
    (
        lambda recipe: recipe.boundaries == "documents" and recipe.short_share > 0,
        "--short-share cuts windows of running text; leave it out or give --boundaries stream.",
    ),
    (
        lambda recipe: recipe.mask_share + recipe.sentence_share > 1 + 1e-9,
        "--mask-share {mask_share} and --sentence-share {sentence_share} are more than 1 together; lower one.",
    ),
    (
        lambda recipe: recipe.boundaries == "documents" and recipe.mip_ratio_of == "sequences",
        "--mip-ratio-of sequences counts rows, and under --boundaries documents MIP shares rows with text; "
        "give tokens or loss-tokens, or --boundaries stream.",
    ),
    (
        lambda recipe: recipe.sentence_share > 0 and recipe.mip_ratio_of == "loss-tokens",
        "--mip-ratio-of loss-tokens cannot be planned with [sMASK] pieces, whose targets depend on the text; "
        "give tokens, or --sentence-share 0.",
    ),
    (
        lambda recipe: bool(recipe.languages) and any(rule.share is not None for rule in recipe.mix.values()),
        "languages and a mix with shares both say how large a part is; give one of them "
        "(epochs and weights go with languages).",
    ),
)


_LEAST_WINDOW = 32
_RANGES: dict[str, tuple[float, float]] = {
    "seq_length": (64, 65_535),
    "mask_share": (0, 1),
    "sentence_share": (0, 1),
    "mask_rate": (0.01, 0.9),
    "span_mean": (0.1, 100),
    "span_longest": (1, 1000),
    "gmask_least": (0, 1),
    "short_share": (0, 1),
    "single_span_share": (0, 1),
    "windows": (1, 64),
    "epochs": (1, 64),
    "max_epochs": (1, 1000),
    "mip_ratio": (0, 0.99),
    "mip_ramp": (0, 2**40),
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
