"""Everything Beam, and only this: stage graphs, runner set-up, and the launcher behind ``beam run``.

A stage is ``Create(tasks) | Map(run one shard)``: PCollections carry small tasks, text travels through files.
"""
