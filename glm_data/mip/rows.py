"""Rows as templates see them: columns renamed, values mapped, constants added, ``|||`` in the data protected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glm_data.errors import InputError
from glm_data.mip.templates import SEPARATOR

HIDDEN = -1
"""The label of a row whose label its data set keeps to itself."""

PROTECTED = "\uf8ff\ue000\uf8ff"
"""Stands for a ``|||`` of the data while a template is rendered (private-use characters)."""


_MOST_DEPTH = 100


class TooDeepError(InputError):
    """A row whose values are nested too deeply to be walked through."""


class RowMap:
    """How the rows of a data set become what its templates read.

    ``columns``: name in the templates -> name in the rows; ``a.b`` is the field b of the object a. ``values``: by
    column, value in the rows as text -> value for the templates; a value of the column ``label`` that is not listed
    counts as hidden (-1), one of another column stays. ``add``: columns with one value for all rows.
    """

    def __init__(
        self,
        columns: Mapping[str, str] | None = None,
        values: Mapping[str, Mapping[str, Any]] | None = None,
        add: Mapping[str, Any] | None = None,
        label: str = "label",
    ) -> None:
        columns = columns or {}
        self._names = {old: new for new, old in columns.items() if "." not in old}
        self._paths = {new: old.split(".") for new, old in columns.items() if "." in old}
        self._values = {name: dict(listed) for name, listed in (values or {}).items()}
        self._add = {name: _protect(value) for name, value in (add or {}).items()}
        self._label = label

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row for :meth:`glm_data.mip.render.Renderer.render`; ``-`` in names becomes ``_``.

        Raises :class:`TooDeepError`.
        """
        made = {self._names.get(name, name).replace("-", "_"): _protect(value) for name, value in row.items()}
        for new, path in self._paths.items():
            made[new] = _protect(_at(row, path))
        for name, listed in self._values.items():
            if name in made:
                made[name] = listed.get(_as_text(made[name]), HIDDEN if name == self._label else made[name])
        made.update(self._add)
        return made


def prepare_row(row: Mapping[str, Any], columns: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A row as templates see it, with ``columns`` renamed (new name: old name).

    Values that are neither JSON's nor sequences become strings where they are printed and have no attributes.
    """
    return RowMap(columns)(row)


def _at(value: Any, path: list[str]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _as_text(value: Any) -> str:
    """A value as keys of a mapping in YAML have it: ``true`` for True, ``1`` for 1."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _protect(value: Any, depth: int = 0) -> Any:
    kind = type(value)
    if kind is str:
        return value.replace(SEPARATOR, PROTECTED) if SEPARATOR in value else value
    if kind is not list and kind is not tuple and kind is not dict:
        return value
    if depth == _MOST_DEPTH:
        raise TooDeepError(f"a row is nested more than {_MOST_DEPTH} levels deep; flatten it.")
    if kind is dict:
        return {key: _protect(item, depth + 1) for key, item in value.items()}
    return [_protect(item, depth + 1) for item in value]
