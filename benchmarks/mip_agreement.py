"""Whether our renderer means what promptsource's does, on data at hand.

``python -m benchmarks.mip_agreement ROWS TEMPLATES``

ROWS is a folder of files of rows (JSON lines, JSON arrays, CSV with a header, parquet), TEMPLATES one of promptsource's
``templates.yaml``. Every file is put through every template file all of whose names are among its columns, and each
row x template is either the same text, refused by us with a reason, or a difference. Random templates are left to the
tests. Ends with 1 if there is a difference, or if rows x templates is not rendered + refused.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.promptsource import Promptsource, environment
from glm_data.errors import InputError
from glm_data.formats import Unreadable
from glm_data.formats.rows import read_rows
from glm_data.mip import Rendered, Renderer, Template, prepare_row, read_templates
from glm_data.mip.dialect import check

DIFFERENT = "different"
Rows = list[tuple[int, Any]]


def main() -> int:
    """Compare, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("templates", type=Path)
    parser.add_argument("--most-rows", type=int, default=50, help="rows of a file to try")
    given = parser.parse_args()
    compile_once = functools.cache(environment().from_string)
    twin = Promptsource(compile_once, truncate=False)
    files = [(path, *_prepare(path)) for path in sorted(given.templates.rglob("templates.yaml"))]
    counts: Counter[str] = Counter()
    tried: set[str] = set()
    for path, rows in _row_files(given.rows, given.most_rows):
        columns = {name.replace("-", "_") for _, row in rows for name in row}
        for place, renderer, names in files:
            if names <= columns:
                tried |= {f"{place}#{template.id}" for template in renderer.templates}
                _compare(renderer, twin, rows, counts, f"{path} through {place}")
    counts["templates"] = len(tried)
    for name, count in sorted(counts.items()):
        print(f"{name:<24}{count:>10,}")
    accounted = sum(count for name, count in counts.items() if name.startswith(("same", "refused", DIFFERENT)))
    return 1 if counts[DIFFERENT] or accounted != counts["rows x templates"] else 0


def _prepare(path: Path) -> tuple[Renderer, frozenset[str]]:
    """A file's templates, but the random ones, and all names that they read."""
    file = read_templates(path)
    templates = [template for template in file.templates.values() if not _is_random(template)]
    names = [check(source, "") for template in templates for source in (template.jinja, template.answer_choices or "")]
    read = frozenset[str]().union(*(checked.variables for checked in names)) - {"answer_choices"}
    return Renderer(templates, dataset=file.dataset, subset=file.subset), read or frozenset({"\0"})


def _is_random(template: Template) -> bool:
    return any(check(source, "").is_random for source in (template.jinja, template.answer_choices or ""))


def _row_files(folder: Path, most: int) -> Iterator[tuple[Path, Rows]]:
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix not in (".json", ".jsonl", ".csv", ".tsv", ".parquet"):
            continue
        try:
            rows = [item for item in islice(read_rows(path), most) if not isinstance(item, Unreadable)]
        except InputError:
            continue
        if rows:
            yield path, rows


def _compare(renderer: Renderer, twin: Promptsource, rows: Rows, counts: Counter[str], where: str) -> None:
    for number, row in rows:
        named = {name.replace("-", "_"): value for name, value in row.items()}
        prepared = prepare_row(row)
        for place, template in enumerate(renderer.templates):
            outcome = _outcome(renderer.render(place, prepared, number), twin, template, named)
            counts["rows x templates"] += 1
            counts[outcome] += 1
            if outcome == DIFFERENT and counts[DIFFERENT] <= 5:
                print(f"{where}: row {number}, {template.name}", file=sys.stderr)


def _outcome(ours: Any, twin: Promptsource, template: Template, row: dict[str, Any]) -> str:
    try:
        theirs = twin.apply(template, row)
    except Exception:
        theirs = None
    if isinstance(ours, Rendered):
        return "same" if theirs == [ours.prompt, ours.target] else DIFFERENT
    means = {
        "not_applicable": theirs is not None and len(theirs) == 1,
        "empty_target": theirs is not None and theirs[1:] == [""],
        "empty_prompt": theirs is not None and theirs[0] == "",
        "error": theirs is None or len(theirs) > 2,
        "hidden_label": True,
        "over_limit": True,
    }
    return f"refused: {ours.reason}" if means[ours.reason] else DIFFERENT


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
