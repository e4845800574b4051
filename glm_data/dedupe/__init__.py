"""De-duplication that deletes only duplicates: MinHash candidates, exact verification, greedy selection.

::

    sign      a task an input       text -> exact keys, band keys, priorities                   first pass over the text
    exact     a task a key range    copies of one folded key, and the document that stands for them
    bands     a task a key range    star edges between documents that share a band key
    sets      a task an input       shingle sets and signatures of the candidates               second pass
    select    a task a unit         verified greedy selection inside connected components
    (output)  a task an input       kept documents with their multiplicity; duplicates.parquet  third pass

Between the steps run only files below ``_work/`` (:mod:`glm_data.dedupe.work`). A document is known by its index: its
place in the order of inputs and of records within them, which is also the order that "the first" refers to.
"""

from glm_data.dedupe.options import DedupeOptions

__all__ = ["DedupeOptions"]
