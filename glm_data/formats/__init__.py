"""Readers and writers of document files; one module a format.

``read_blocks`` reads any of them, plain or compressed, and never stops at a bad record: what cannot be read comes
back beside the documents, with its place and the reason.
"""

from glm_data.formats.blocks import DEFAULT_MAX_RECORD_BYTES, Block, Unreadable
from glm_data.formats.read import read_blocks
from glm_data.formats.sniff import FORMATS, sniff

__all__ = ["DEFAULT_MAX_RECORD_BYTES", "FORMATS", "Block", "Unreadable", "read_blocks", "sniff"]
