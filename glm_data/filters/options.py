"""Options of the filter stage."""

from __future__ import annotations

from typing import Annotated, Literal

from glm_data.config import Config, Doc
from glm_data.formats import DEFAULT_MAX_RECORD_BYTES

Step = Literal[
    "mojibake", "newlines", "control", "html", "white_space", "repeats", "personal", "title", "last_fragment"
]  # fmt: skip
DEFAULT_STEPS: tuple[Step, ...] = (
    "mojibake", "newlines", "control", "html", "white_space", "repeats", "personal", "title",
)  # fmt: skip
ALL_STEPS: tuple[Step, ...] = (*DEFAULT_STEPS, "last_fragment")

Language = Literal["zh-Hans", "zh-Hant", "en", "ja", "ko", "mixed", "other"]
Format = Literal["auto", "pile", "wudao", "jsonl", "parquet", "text"]
OutputFormat = Literal["parquet", "jsonl.zst"]


class FilterOptions(Config, frozen=True, kw_only=True):
    """How records are read, cleaned and judged."""

    profile: Annotated[str, Doc("rules by name (bilingual) or the path of a profile")] = "bilingual"
    format: Annotated[Format, Doc("format of the inputs; auto: look at each")] = "auto"
    steps: Annotated[tuple[Step, ...], Doc("cleaning steps; their order is fixed")] = DEFAULT_STEPS
    to_simplified: Annotated[bool, Doc("convert traditional Chinese to simplified")] = False
    language_model: Annotated[str, Doc("fastText model (.bin, .ftz) that votes on the language of Latin script")] = ""
    paragraph_languages: Annotated[bool, Doc("name the language of every paragraph, in columns of their own")] = False
    drop_paragraphs: Annotated[tuple[Language, ...], Doc("languages whose paragraphs go")] = ()
    quality_model: Annotated[str, Doc("model of 'glm-data filter train-quality', for the signal quality")] = ""
    word_lists: Annotated[tuple[str, ...], Doc("files of words, one a line, for the signals listed_...")] = ()
    url_lists: Annotated[tuple[str, ...], Doc("files of hosts to drop, one a line, by the url in meta")] = ()
    drop_sources: Annotated[tuple[str, ...], Doc("sources to drop; * stands for anything")] = ()
    keep_signals: Annotated[bool, Doc("write the signals of every document, for 'glm-data filter tune'")] = True
    max_bad_fraction: Annotated[float, Doc("largest share of unreadable records, else exit code 3", 0, 1)] = 0.01
    max_source_loss: Annotated[float, Doc("largest share of a source to lose, else exit code 3", 0, 1)] = 0.98
    max_record_bytes: Annotated[int, Doc("longest record to read", 1)] = DEFAULT_MAX_RECORD_BYTES
    output_format: Annotated[OutputFormat, Doc("format of the documents written")] = "parquet"
