"""glm-data: bilingual corpus preparation, MIP mixing, packed GLM rows, a reference trainer and INT4 inference.

The rooms, from the ground floor up (nothing imports upward; ``tests/test_floors.py`` holds that)::

    errors, files, config, documents, formats, stage, text
    filters, dedupe, mip          what happens to documents
    packing -> loading            documents to 2048-token rows, rows to batches
    model -> training -> int4 -> megatron, generation -> evaluation
    report                        reads what stages wrote
    cli                           the ``glm-data`` command

``pipelines`` (Beam) and ``tokenizer`` (SentencePiece) are top-level packages beside this one.
"""

__version__ = "0.1.0"
