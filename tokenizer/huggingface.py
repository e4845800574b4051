"""Our BPE vocabularies as a ``tokenizer.json`` of Hugging Face's ``tokenizers``, with the same ids, which are proved.

Spaces stay spaces (no normaliser, no prefix), white-space symbols are added tokens, which that library matches first
and longest, and task tokens are entries of the vocabulary that no merge leads to: they cannot come from text there
either. What our own encoder sends around SentencePiece (U+2581) falls to byte pieces there by itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from tokenizer import model_file
from tokenizer.errors import TokenizerError
from tokenizer.special import SPECIAL, SPECIAL_PIECES
from tokenizer.tokenizer import PROBES, Tokenizer

_PIECES_IN_PROBE = 40


def tokenizer_json(tokenizer: Tokenizer) -> str:
    """The file's text. Raises :class:`TokenizerError` for unigram vocabularies."""
    if tokenizer.kind != "bpe":
        raise TokenizerError(f"a {tokenizer.kind} vocabulary cannot be written for tokenizers; train one of kind bpe.")
    parsed = model_file.parse_model(tokenizer.model_bytes)
    names = [piece.decode("utf-8", "replace").replace("\u2581", " ") for piece in parsed.pieces]
    normal = {name: id for id, name in enumerate(names) if parsed.types[id] == model_file.NORMAL}
    symbols = [id for id in range(len(names)) if parsed.types[id] == model_file.USER_DEFINED]
    value = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(id, names[id]) for id in symbols],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": SPECIAL_PIECES[SPECIAL.unk],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {name: id for id, name in enumerate(names)},
            "merges": _merges(normal, [float(np.frombuffer(score, "<f4")[0]) for score in parsed.scores]),
        },
    }
    return json.dumps(value, ensure_ascii=False, indent=1)


def _added(id: int, content: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": id, "content": content, **flags}


def _merges(normal: dict[str, int], scores: Sequence[float]) -> list[list[str]]:
    """Every way to put a piece together from two others, the best piece first."""
    ranked = sorted(normal, key=lambda name: (-scores[normal[name]], normal[name]))
    return [
        [name[:cut], name[cut:]]
        for name in ranked
        for cut in range(1, len(name))
        if name[:cut] in normal and name[cut:] in normal
    ]


def first_difference(tokenizer: Tokenizer, written: str) -> str | None:
    """The first text of a probe set whose ids differ in ``tokenizers``, or that it does not give back; None if none.

    The probe set is the one of the encoder by words, and all pieces of the vocabulary, in rows. Needs the package.
    """
    from tokenizers import Tokenizer as Other

    other = Other.from_str(written)
    pieces = [tokenizer.piece_bytes(id).decode("utf-8", "replace") for id in range(len(SPECIAL), tokenizer.pieces)]
    rows = ["".join(pieces[at : at + _PIECES_IN_PROBE]) for at in range(0, len(pieces), _PIECES_IN_PROBE)]
    for text in (*PROBES, *rows, *(" ".join(pieces[at :: len(rows)]) for at in range(min(len(rows), 50)))):
        ids = tokenizer.encode(text)
        if other.encode(text, add_special_tokens=False).ids != ids.tolist() or other.decode(ids.tolist()) != text:
            return text
    return None
