"""What makes a folder of Arrow stream files one that ``datasets.load_from_disk`` maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from glm_data.files import digest_value, write_json


def write_sidecars(folder: Path, names: list[str], features: dict[str, Any]) -> list[str]:
    """Write ``state.json`` and ``dataset_info.json`` for the files ``names``; returns the names of the two.

    ``features`` are the columns as ``datasets`` writes them down: a mapping from name to feature.
    """
    state: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": digest_value([names, features])[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    write_json(folder / "state.json", state)
    write_json(folder / "dataset_info.json", {"citation": "", "description": "", "features": features})
    return ["state.json", "dataset_info.json"]
