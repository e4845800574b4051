"""Cleaning, languages and verdicts: what is kept of a corpus, and why the rest is not.

``filter_block`` does it all to one block in memory; ``filter_shard`` to one file.
"""

from glm_data.filters.block import Filtered, filter_block
from glm_data.filters.checks import check_shards, digest_files
from glm_data.filters.language import LANGUAGES
from glm_data.filters.options import ALL_STEPS, FilterOptions
from glm_data.filters.rules import Profile, Rule, load_profile, profile_names
from glm_data.filters.shard import FilterTask, filter_shard

__all__ = [
    "ALL_STEPS",
    "LANGUAGES",
    "FilterOptions",
    "FilterTask",
    "Filtered",
    "Profile",
    "Rule",
    "check_shards",
    "digest_files",
    "filter_block",
    "filter_shard",
    "load_profile",
    "profile_names",
]
