"""What a de-duplication run can be told."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from glm_data.config import Config, Doc
from glm_data.errors import ConfigError, did_you_mean

RULES_OF_KEEP = ("source-order", "quality", "longest", "simplified", "id")
"""Rules that ``keep`` may list, from the best on: by the order of sources, a higher quality score, more bytes,
simplified before traditional Chinese, and the order of inputs and of records in them, which always comes last."""


class DedupeOptions(Config, frozen=True):
    """Options of the ``dedupe`` stage."""

    threshold: Annotated[float, Doc("Jaccard similarity of shingle sets from which a document is a duplicate")] = 0.8
    containment: Annotated[
        float, Doc("share of a document's shingles in a kept candidate from which it is a duplicate too; 0 is off")
    ] = 0.0
    ngram: Annotated[int, Doc("tokens in a shingle: words, or characters of Chinese and its like")] = 5
    unit: Annotated[
        Literal["auto", "word", "character"],
        Doc("token of scripts with spaces: word; character, signs included; auto takes characters in Chinese texts"),
    ] = "auto"
    fold_digits: Annotated[bool, Doc("compare as if all numbers were equal")] = False
    bands: Annotated[int, Doc("bands of locality-sensitive hashing")] = 20
    rows: Annotated[int, Doc("minima in a band")] = 6
    permutations: Annotated[
        int, Doc("if above 0: datasketch's optimiser picks bands and rows within so many permutations")
    ] = 0
    seed: Annotated[int, Doc("seed of the permutations")] = 1
    keep: Annotated[
        tuple[str, ...],
        Doc(
            f"which of several stays: rules out of {', '.join(RULES_OF_KEEP)}; the first that tells them apart decides"
        ),
    ] = ("source-order", "id")
    source_order: Annotated[
        tuple[str, ...], Doc("sources from the best on, for the rule 'source-order'; others after")
    ] = ()
    quality_field: Annotated[
        str, Doc("column, or number in meta, that the rule 'quality' goes by; documents without one come last")
    ] = "quality"
    against: Annotated[
        tuple[str, ...], Doc("finished runs with an index; what they kept stays, and nothing like it is kept again")
    ] = ()
    export_index: Annotated[
        bool, Doc("write index/: what --against needs, and signatures that datasketch's MinHashLSH can load")
    ] = False
    lines: Annotated[
        Literal["off", "line", "paragraph"], Doc("cut lines or paragraphs that a better kept document has, too")
    ] = "off"
    shortest_line: Annotated[int, Doc("characters below which a line or paragraph is never cut")] = 20
    rehydrate: Annotated[
        str,
        Doc(
            "column 'repeats': how often to use a document by how many it stands for: fineweb2, or 1:1,2:2,5:4; '' off"
        ),
    ] = ""
    shuffle: Annotated[
        Literal["files", "beam"], Doc("how band keys come together: key ranges read from files, or Beam's GroupByKey")
    ] = "files"
    format: Annotated[str, Doc("format of the input files, or auto")] = "auto"
    spool: Annotated[bool, Doc("keep a parsed copy of inputs that are not parquet until the run is finished")] = True
    partitions: Annotated[int, Doc("key ranges that candidates are searched in; 0 chooses by size")] = 0
    bucket_limit: Annotated[
        int, Doc("kept documents a band's bucket offers for comparison; boilerplate shared by more is counted")
    ] = 200
    memory_mb: Annotated[
        int, Doc("megabytes of shingle sets that a task compares at a time; larger components are walked in pieces")
    ] = 512
    max_source_loss: Annotated[float, Doc("guard rail: largest share of a source's documents to remove", 0, 1)] = 0.9
    max_bad_fraction: Annotated[float, Doc("guard rail: largest share of records that cannot be read", 0, 1)] = 0.01

    @property
    def shingling(self) -> dict[str, Any]:
        """How shingles are made, as arguments of :func:`glm_data.text.shingles.shingle_texts`."""
        return {"ngram": self.ngram, "fold_digits": self.fold_digits, "unit": self.unit}

    def __post_init__(self) -> None:
        # Both `--keep a,b` and `--keep a --keep b` are meant; plans record one form.
        rules = tuple(rule.strip() for word in self.keep for rule in word.split(","))
        msgspec.structs.force_setattr(self, "keep", rules)
        _check_rules(rules)
        parse_repeats(self.rehydrate)
        checks = {
            "threshold": 0 < self.threshold <= 1,
            "containment": 0 <= self.containment <= 1,
            "ngram": 1 <= self.ngram <= 64,
            "bands": self.bands >= 1,
            "rows": self.rows >= 1,
            "permutations": self.permutations >= 0,
            "partitions": self.partitions >= 0,
            "bucket_limit": self.bucket_limit >= 1,
            "shortest_line": self.shortest_line >= 0,
            "memory_mb": self.memory_mb >= 1,
            "seed": 0 <= self.seed < 2**32,
            "source_order": len(self.source_order) < MAX_SOURCES,
        }
        for name, holds in checks.items():
            if not holds:
                raise ConfigError(f"{name} {getattr(self, name)}: {_RANGES[name]}.")


MAX_SOURCES = 1 << 12
_RANGES = {
    "threshold": "give a similarity above 0 and up to 1",
    "containment": "give a share from 0 (off) to 1",
    "ngram": "give 1 to 64 tokens",
    "bands": "give 1 or more",
    "rows": "give 1 or more",
    "permutations": "give 0 (use bands and rows) or more",
    "partitions": "give 0 (chosen by size) or more",
    "bucket_limit": "give 1 or more",
    "shortest_line": "give a number of characters",
    "memory_mb": "give 1 or more",
    "seed": "give 0 to 4294967295",
    "source_order": f"give fewer than {MAX_SOURCES} sources",
}


def _check_rules(rules: tuple[str, ...]) -> None:
    for place, rule in enumerate(rules):
        if rule not in RULES_OF_KEEP:
            cure = did_you_mean(rule, RULES_OF_KEEP) or f" Rules: {', '.join(RULES_OF_KEEP)}."
            raise ConfigError(f"keep: there is no rule '{rule}'.{cure}")
        if rule in rules[:place]:
            raise ConfigError(f"keep: the rule '{rule}' is given twice; the first place decides, leave the second out.")
        if rule == "id" and place + 1 < len(rules):
            raise ConfigError(f"keep: nothing can come after 'id', which tells all apart; put '{rules[-1]}' before it.")


FINEWEB2 = "1:1,2:2,3:3,4:3,5:5,100:8,1000:1"
"""How often FineWeb-2 repeats a document by the size of its cluster (its README)."""


def parse_repeats(table: str) -> tuple[tuple[int, int], ...]:
    """A table of ``rehydrate`` as ascending pairs (from so many documents on, repeats); raises :class:`ConfigError`."""
    if not table:
        return ()
    try:
        words = [word.split(":") for word in (FINEWEB2 if table == "fineweb2" else table).split(",")]
        pairs = tuple((int(size), int(repeats)) for size, repeats in words)
    except ValueError:
        pairs = ()
    sizes = [size for size, _ in pairs]
    if not pairs or sizes[0] != 1 or sizes != sorted(set(sizes)) or not all(0 <= n < 1000 for _, n in pairs):
        raise ConfigError(
            f"rehydrate '{table}': give fineweb2, or ascending SIZE:REPEATS pairs from size 1 on, such as 1:1,2:2,5:4."
        )
    return pairs
