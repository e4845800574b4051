"""What a de-duplication run can be told."""

from __future__ import annotations

from typing import Annotated, Literal

from glm_data.config import Config, Doc
from glm_data.errors import ConfigError

Policy = Literal["source", "longest", "simplified", "first"]


class DedupeOptions(Config, frozen=True):
    """Options of the ``dedupe`` stage."""

    threshold: Annotated[float, Doc("Jaccard similarity of shingle sets from which a document is a duplicate")] = 0.8
    containment: Annotated[
        float, Doc("share of a document's shingles in a kept candidate from which it is a duplicate too; 0 is off")
    ] = 0.0
    ngram: Annotated[int, Doc("tokens in a shingle: words, or characters of Chinese and its like")] = 5
    fold_digits: Annotated[bool, Doc("compare as if all numbers were equal")] = False
    bands: Annotated[int, Doc("bands of locality-sensitive hashing")] = 20
    rows: Annotated[int, Doc("minima in a band")] = 6
    permutations: Annotated[
        int, Doc("if above 0: datasketch's optimiser picks bands and rows within so many permutations")
    ] = 0
    seed: Annotated[int, Doc("seed of the permutations")] = 1
    keep: Annotated[
        tuple[Policy, ...], Doc("which document of several stays, the first rule that tells them apart decides")
    ] = ("source", "first")
    source_order: Annotated[tuple[str, ...], Doc("sources from the best on, for the rule 'source'; others after")] = ()
    format: Annotated[str, Doc("format of the input files, or auto")] = "auto"
    spool: Annotated[bool, Doc("keep a parsed copy of inputs that are not parquet until the run is finished")] = True
    partitions: Annotated[int, Doc("key ranges that candidates are searched in; 0 chooses by size")] = 0
    bucket_limit: Annotated[
        int, Doc("kept documents a band's bucket offers for comparison; boilerplate shared by more is counted")
    ] = 200
    max_source_loss: Annotated[float, Doc("guard rail: largest share of a source's documents to remove", 0, 1)] = 0.9
    max_bad_fraction: Annotated[float, Doc("guard rail: largest share of records that cannot be read", 0, 1)] = 0.01

    def __post_init__(self) -> None:
        checks = {
            "threshold": 0 < self.threshold <= 1,
            "containment": 0 <= self.containment <= 1,
            "ngram": 1 <= self.ngram <= 64,
            "bands": self.bands >= 1,
            "rows": self.rows >= 1,
            "permutations": self.permutations >= 0,
            "partitions": self.partitions >= 0,
            "bucket_limit": self.bucket_limit >= 1,
            "seed": 0 <= self.seed < 2**32,
            "source_order": len(self.source_order) < MAX_SOURCES,
        }
        for name, holds in checks.items():
            if not holds:
                raise ConfigError(f"{name} {getattr(self, name)}: {_RANGES[name]}.")


MAX_SOURCES = 1 << 16
_RANGES = {
    "threshold": "give a similarity above 0 and up to 1",
    "containment": "give a share from 0 (off) to 1",
    "ngram": "give 1 to 64 tokens",
    "bands": "give 1 or more",
    "rows": "give 1 or more",
    "permutations": "give 0 (use bands and rows) or more",
    "partitions": "give 0 (chosen by size) or more",
    "bucket_limit": "give 1 or more",
    "seed": "give 0 to 4294967295",
    "source_order": f"give fewer than {MAX_SOURCES} sources",
}
