"""De-duplicate a Hugging Face data set and keep all of its columns.

    python examples/dedupe_hf_dataset.py

A stage reads parquet, so the texts go out as one file; what comes back is which rows to keep. An id of a document is
the name of its file and the number of its record, which is the number of the row.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import datasets
import pyarrow.parquet as pq

from glm_data.dedupe import DedupeOptions
from glm_data.stage import find_inputs
from pipelines import dedupe
from pipelines.runner import RunnerOptions

EXAMPLE = {
    "text": [
        "The quick brown fox jumps over the lazy dog near the river bank.",
        "床前明月光，疑是地上霜。举头望明月，低头思故乡。",
        "THE QUICK BROWN FOX jumps over the lazy dog, near the river bank!",
        "Water boils at one hundred degrees Celsius at the level of the sea.",
        "床前明月光,疑是地上霜.舉頭望明月,低頭思故鄉.",
    ],
    "label": [0, 1, 2, 3, 4],
}


def deduplicate(rows: datasets.Dataset, folder: Path, threshold: float = 0.8) -> datasets.Dataset:
    """The rows of a data set with a column ``text`` that no earlier row repeats; ``folder`` takes the stage."""
    (folder / "texts").mkdir(parents=True)
    rows.select_columns(["text"]).to_parquet(folder / "texts" / "rows.parquet")
    options = DedupeOptions(threshold=threshold, max_source_loss=1.0)
    success = dedupe.run([folder / "texts"], folder / "deduped", options, RunnerOptions())
    print(f"{success.records} rows, {success.kept} kept, {sum(success.dropped.values())} removed: {success.dropped}")
    kept = [
        int(id.rpartition("#")[2])
        for item in find_inputs([folder / "deduped"])
        for id in pq.read_table(item.path, columns=["id"]).column("id").to_pylist()
    ]
    return rows.select(sorted(kept))


def main() -> None:
    """Show it on five rows, two of which are others in another spelling."""
    with tempfile.TemporaryDirectory() as folder:
        for row in deduplicate(datasets.Dataset.from_dict(EXAMPLE), Path(folder) / "work"):
            print(row["label"], row["text"])


if __name__ == "__main__":
    main()
