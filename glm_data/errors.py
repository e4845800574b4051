"""What can go wrong because of input, options or environment, and the exit code each becomes.

::

    GlmDataError            exit 1   what, where, why, what to do: one sentence, no traceback
    ├── UsageError          exit 2   options, recipes, paths that cannot be meant
    │   ├── ConfigError         a recipe or profile that does not fit its schema
    │   └── StageMismatchError  an output folder that was begun with other options or inputs
    ├── InputError          exit 1   data that cannot be processed at all
    ├── OutputError         exit 1   a folder or file that cannot be written: disk full, read-only, no permission
    ├── MissingExtraError   exit 1   an optional dependency is not installed
    └── InterruptedRunError exit 130 stopped by the user; run again to go on

Exit code 0 is success and 3 a run that finished with a guard rail tripped (see :class:`glm_data.stage.Check`).
A traceback reaches a user only for a bug of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GlmDataError(Exception):
    """Base of every error a user can cause or cure; the message is shown as it stands."""

    exit_code = 1


class UsageError(GlmDataError):
    """The command, its options or a path in them cannot be meant."""

    exit_code = 2


class ConfigError(UsageError):
    """A YAML file or mapping does not fit its schema; the message names the path inside it."""


class StageMismatchError(UsageError):
    """An output folder was begun with another key; the message lists what differs."""


class InputError(GlmDataError):
    """Input that cannot be processed at all (single bad records are counted and kept aside instead)."""


class OutputError(GlmDataError):
    """A file or folder cannot be written: the disk is full, read-only or not ours to write to."""


class MissingExtraError(GlmDataError):
    """An optional dependency is needed; the message holds the pip line."""


class InterruptedRunError(GlmDataError):
    """Stopped by the user; everything finished so far is kept."""

    exit_code = 130


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest known word, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""
