"""Decontamination: evaluation items are found in documents by their grams, and cut out or dropped with them.

::

    index     in the driver    items of the evaluation sets -> grams, and the items that hold each
    find      a task an input  grams of the index in documents                  first pass over the text
    common    in the driver    grams in too many documents to be evidence
    (output)  a task an input  verdicts; documents kept, cut or dropped; the ledger of what was found    second pass

An item is found in a document if its grams that stand there (:mod:`glm_data.text.grams`) cover enough of it. ``search``
does the same for any texts in memory, such as rendered instruction data.
"""

from glm_data.decontaminate.index import Index, build_index
from glm_data.decontaminate.items import Evaluation, read_evaluation
from glm_data.decontaminate.options import DecontaminateOptions
from glm_data.decontaminate.search import Hits, search

__all__ = ["DecontaminateOptions", "Evaluation", "Hits", "Index", "build_index", "read_evaluation", "search"]
