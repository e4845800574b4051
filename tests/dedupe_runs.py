"""Small runs of the de-duplication pipeline, and what came out of them."""

import json

import pyarrow as pa
import pyarrow.parquet as pq

from glm_data.dedupe import DedupeOptions
from pipelines import dedupe as pipeline
from pipelines.runner import RunnerOptions, run_and_record

ONE = RunnerOptions(workers=1)


def run_in_process(opened, function, tasks, options):
    """In place of Beam, for runs that are not about it."""
    for task in tasks:
        if task.shard in opened.pending(len(tasks)):
            run_and_record(function, task)


def write_jsonl(path, texts, source="own"):
    rows = [json.dumps({"text": text, "meta": {"pile_set_name": source}}, ensure_ascii=False) for text in texts]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def run(inputs, out, runner=ONE, **options):
    return pipeline.run([str(item) for item in inputs], out, DedupeOptions(**options), runner)


def kept_rows(out, success):
    tables = [pq.read_table(out / item.name) for item in success.files if item.name.startswith("data/")]
    return pa.concat_tables(tables).to_pylist()


def removals(out):
    return pq.read_table(out / "duplicates.parquet").to_pylist()
