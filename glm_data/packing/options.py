"""The packer's options: the ``glm-130b`` recipe with every knob named and its unit stated."""

from __future__ import annotations

from typing import Annotated, Literal

from glm_data.config import Config, Doc
from glm_data.errors import UsageError


class PackOptions(Config, frozen=True):
    """How documents become rows (GLM-130B paper, sections 2.2-2.3 and table 11)."""

    preset: Annotated[Literal["glm-130b"], Doc("recipe: running text cut anywhere, one mask kind a row")] = "glm-130b"
    seq_length: Annotated[int, Doc("tokens a row")] = 2048
    mask_share: Annotated[float, Doc("share of text rows with [MASK] spans; the others are [gMASK]")] = 0.3
    mask_rate: Annotated[float, Doc("share of a [MASK] piece's tokens to mask, at least")] = 0.15
    span_mean: Annotated[float, Doc("mean of the Poisson of span lengths, before truncating zero")] = 3.0
    span_longest: Annotated[int, Doc("longest span, tokens")] = 39
    gmask_least: Annotated[float, Doc("least share of a [gMASK] row to generate; uniform from there to all")] = 0.2
    short_share: Annotated[float, Doc("share of [MASK] pieces cut to a random shorter length")] = 0.02
    single_span_share: Annotated[float, Doc("share of [MASK] pieces with one span only")] = 0.02
    windows: Annotated[int, Doc("windows of a [MASK] row, one piece each")] = 4
    mip_ratio: Annotated[float | None, Doc("share of the packed tokens that is MIP; 0.05 when MIP rows are given")] = (
        None
    )
    mip_window: Annotated[int, Doc("longest MIP piece, tokens (at most a row); longer prompts lose their end")] = 512
    mip_repeats: Annotated[int, Doc("how often one MIP sample may be used at most to reach the ratio")] = 4
    seed: Annotated[int, Doc("seed of every random choice")] = 1234
    rows_per_shard: Annotated[int, Doc("rows of a shard; only the last one is shorter")] = 8192


def check_options(options: PackOptions) -> None:
    """Refuse options that cannot be meant; raises :class:`UsageError` naming the option and its range."""
    limits = {
        "seq_length": (64, 65_535),
        "mask_share": (0, 1),
        "mask_rate": (0.01, 0.9),
        "span_mean": (0.1, 100),
        "span_longest": (1, 1000),
        "gmask_least": (0, 1),
        "short_share": (0, 1),
        "single_span_share": (0, 1),
        "windows": (1, 64),
        "mip_ratio": (0, 0.99),
        "mip_window": (8, 65_535),
        "mip_repeats": (1, 1000),
        "seed": (0, 2**63 - 1),
        "rows_per_shard": (1, 1 << 20),
    }
    for name, (least, most) in limits.items():
        value = getattr(options, name)
        if value is not None and not least <= value <= most:
            raise UsageError(
                f"--{name.replace('_', '-')} {value} is out of range; give a number from {least} to {most}."
            )
    if options.seq_length % options.windows or options.seq_length // options.windows < 32:
        raise UsageError(
            f"--windows {options.windows} does not divide --seq-length {options.seq_length} into windows of 32 or more."
        )
