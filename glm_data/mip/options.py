"""The options of the mip stage."""

from __future__ import annotations

from typing import Annotated, Literal

from glm_data.bans import DEFAULT, BansOption
from glm_data.config import Config, Doc
from glm_data.mip.sandbox import DEFAULT_LONGEST_OUTPUT, DEFAULT_MOST_STEPS


class MipOptions(Config, frozen=True, kw_only=True):
    """How a mixture is rendered."""

    seed: Annotated[int, Doc("seed of random choices in templates, of worked examples, of caps and of weights")] = 0
    rows: Annotated[str, Doc("folder that paths of rows are relative to, in place of the mixture's own")] = ""
    templates: Annotated[str, Doc("folder of templates, in place of the mixture's own")] = ""
    missing: Annotated[
        Literal["error", "skip"], Doc("what to do about data sets whose rows or templates are not there")
    ] = "error"
    tokenizer: Annotated[str, Doc("folder of the tokenizer that counts tokens; without one they are estimated")] = ""
    window: Annotated[int, Doc("tokens of a zero-shot sample above which it is reported as over-long", 8)] = 512
    few_shot_window: Annotated[int, Doc("tokens that a sample with worked examples may have", 8)] = 2048
    part_rows: Annotated[int, Doc("rows a shard; duplicates are found within one", 1)] = 100_000
    most_steps: Annotated[int, Doc("steps that one render may take; a few microseconds each", 1)] = DEFAULT_MOST_STEPS
    longest_output: Annotated[int, Doc("characters that one render may give", 1)] = DEFAULT_LONGEST_OUTPUT
    bans: BansOption = DEFAULT
    max_error_fraction: Annotated[float, Doc("share of failed renders from which the exit code is 3", 0, 1)] = 0.01
    max_bad_fraction: Annotated[float, Doc("share of unreadable rows from which the exit code is 3", 0, 1)] = 0.01
