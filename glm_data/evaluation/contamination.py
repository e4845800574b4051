"""Which items of an evaluation stand in the documents that a model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from glm_data.decontaminate.index import index_items
from glm_data.decontaminate.items import Item
from glm_data.decontaminate.options import DecontaminateOptions
from glm_data.decontaminate.search import judge
from glm_data.formats import read_blocks
from glm_data.inputs import find_inputs
from glm_data.text.grams import Places, find_grams


def find_in_corpus(texts: Sequence[str], corpus: Sequence[Path]) -> npt.NDArray[np.bool_]:
    """``bool[items]``: whether each of ``texts`` is found in the documents at the paths ``corpus``.

    By decontamination's rule and its default options: half of the item's tokens are covered by grams of 13 words or 24
    characters that stand in one document, grams of more than 100 documents being no evidence. An item too short for a
    gram is never found; one that repeats an earlier item is found with it.
    """
    options = DecontaminateOptions(evaluation="")
    first = {text: place for place, text in reversed(list(enumerate(texts)))}
    own = [Item(str(place), (text,)) for text, place in sorted(first.items(), key=lambda entry: entry[1])]
    index = index_items({"": own}, options.shape, options.common_items)
    places = [np.zeros((4, 0), np.int32)]
    documents = 0
    for file in find_inputs(corpus, digest=False):
        for block in read_blocks(file):
            found = find_grams(block.documents.column("text"), index.lookup)
            places.append(np.stack(found) + np.array([[documents], [0], [0], [0]], np.int32))
            documents += block.documents.num_rows
    everywhere = Places(*np.concatenate(places, axis=1))
    hits, _ = judge(everywhere, index, options.containment, _common(everywhere, index.hashes.size, options))
    is_found = np.zeros(len(texts), bool)
    is_found[index.ids[hits.items[hits.is_hit]].astype(np.int64)] = True
    return is_found[[first[text] for text in texts]]


def _common(places: Places, grams: int, options: DecontaminateOptions) -> npt.NDArray[Any]:
    """``bool[grams]``: in too many documents to be evidence."""
    pairs = np.unique(np.stack([places.texts, places.grams]), axis=1)
    return np.bincount(pairs[1], minlength=grams) > options.common_documents
