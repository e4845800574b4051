"""The token ids that a pack was made of, read again from the tokenize stage."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from glm_data.errors import InputError, UsageError
from glm_data.files import digest_file
from glm_data.loading.rows import PackedRows
from glm_data.packing.masking import PieceTexts
from glm_data.packing.sources import TextStream, map_ids, read_tokenized
from glm_data.stage import read_success


class SourceText:
    """The documents of a finished tokenize stage by number, for comparison with packed rows."""

    def __init__(self, folder: Path, pack: PackedRows) -> None:
        """Raises :class:`UsageError` if ``folder`` is not the stage that ``pack`` was made of."""
        success = read_success(folder)
        if success.stage != "tokenize":
            raise UsageError(f"'{folder}' is a finished '{success.stage}' stage; give the tokenize stage of the pack.")
        changed = [item.name for item in success.files if digest_file(folder / item.name) != item.digest]
        if changed:
            raise InputError(f"'{folder / changed[0]}' has changed since it was written; run the tokenize stage again.")
        names = [item.name for item in success.files if item.name.startswith("data/")]
        documents = read_tokenized(folder, names)
        facts = pack.manifest.facts
        if len(documents.length) != facts["documents"] or success.facts.get("fingerprint") != facts["fingerprint"]:
            raise UsageError(
                f"'{folder}' holds {len(documents.length)} documents and '{pack.folder}' was made of "
                f"{facts['documents']}, or of another tokenizer's ids; give the tokenize stage that was packed."
            )
        nothing = np.empty(0, np.int64)
        self.documents = len(documents.length)
        self._stream = TextStream(
            map_ids(folder, documents.stems), documents.file, documents.offset, documents.length, nothing, nothing,
            facts["specials"]["eos"],
        )  # fmt: skip

    def differing_rows(self, texts: PieceTexts, origin_offsets: np.ndarray, origins: np.ndarray) -> list[int]:
        """The rows of ``texts`` that hold other tokens than the documents that they name; MIP is left out."""
        of_text = origins[:, 0] < self.documents
        wanted = self._stream.gather(origins[of_text])
        ends, tokens = np.cumsum(origins[:, 2]), origins[of_text, 2]
        begins = ends[of_text] - tokens
        place = np.arange(len(wanted)) + np.repeat(begins - (np.cumsum(tokens) - tokens), tokens)
        wrong = place[texts.text[place] != wanted]
        row_ends = texts.starts[texts.piece_offsets[1:]]
        return np.unique(np.searchsorted(row_ends, wrong, "right")).tolist()
