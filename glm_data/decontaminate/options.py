"""What a decontamination run can be told."""

from __future__ import annotations

from typing import Annotated, Literal

from glm_data.config import Config, Doc
from glm_data.errors import ConfigError
from glm_data.formats import DEFAULT_MAX_RECORD_BYTES
from glm_data.text.grams import MOST_TOKENS, Shape

Action = Literal["cut", "drop"]


class DecontaminateOptions(Config, frozen=True, kw_only=True):
    """Options of the ``decontaminate`` stage."""

    evaluation: Annotated[str, Doc("manifest of the evaluation sets: names, files, fields")]
    action: Annotated[Action, Doc("cut what was found out of its document, or drop the document")] = "cut"
    words: Annotated[int, Doc("words in a gram, of scripts that put spaces between them", 1, MOST_TOKENS)] = 13
    characters: Annotated[int, Doc("characters in a gram, of Chinese and its like", 1, MOST_TOKENS)] = 24
    short: Annotated[
        float, Doc("share of a gram that an item must have to be looked for as a whole if it is shorter than one", 0, 1)
    ] = 0.6
    containment: Annotated[
        float, Doc("share of an item that its grams in a document must cover for it to be found there", 0, 1)
    ] = 0.5
    margin: Annotated[int, Doc("characters to cut on both sides of what was found", 0)] = 200
    most_cuts: Annotated[int, Doc("cuts beyond which a document is dropped", 1)] = 10
    shortest_piece: Annotated[int, Doc("characters that a piece between cuts must have to stay", 1)] = 200
    common_items: Annotated[int, Doc("items of one benchmark beyond which a gram is its boilerplate", 1)] = 10
    common_documents: Annotated[int, Doc("documents beyond which a gram is boilerplate of the corpus", 1)] = 100
    format: Annotated[str, Doc("format of the input files, or auto")] = "auto"
    max_record_bytes: Annotated[int, Doc("longest record to read", 1)] = DEFAULT_MAX_RECORD_BYTES
    max_source_hits: Annotated[float, Doc("guard rail: largest share of a source's documents to touch", 0, 1)] = 0.05
    max_benchmark_hits: Annotated[
        float, Doc("guard rail: largest share of documents to touch for a benchmark", 0, 1)
    ] = 0.02
    max_bad_fraction: Annotated[float, Doc("guard rail: largest share of records that cannot be read", 0, 1)] = 0.01

    def __post_init__(self) -> None:
        if self.containment <= 0:
            raise ConfigError("containment 0: give a share above 0, such as 0.5, or 0.01 for any gram at all.")

    @property
    def shape(self) -> Shape:
        """How long a gram is."""
        return Shape(self.words, self.characters, self.short)
