"""From a record's bytes to a document: the field conventions of Pile, WuDao, plain JSON lines and our own files."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from glm_data.documents import document_id
from glm_data.formats.blocks import BadRecordError, Document

TEXT_FIELDS = ("text", "content", "raw_content")
"""Where the text is looked for, in this order: Pile and most others, WuDao, CCNet."""

_SOURCE_FIELDS = ("pile_set_name", "source")
_OWN_STRINGS = ("id", "text", "source", "lang")
_OWN_FIELDS = frozenset({*_OWN_STRINGS, "meta"})
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder(enc_hook=str)


def decode_document(data: bytes, input_name: str, number: int) -> Document:
    """Decode one JSON record of ``input_name``; raises :class:`BadRecordError`.

    * Pile: ``{"text", "meta": {"pile_set_name", …}}``, where ``meta`` may be an object or a JSON string of one.
    * WuDao: ``{"content", "title", "dataType", …}``; the source becomes ``WuDao/<dataType>``.
    * Ours: all of ``id, text, source, lang, meta``, kept as they are.

    All other fields go to ``meta``.
    """
    record = decode_json(data)
    if type(record) is not dict:
        raise BadRecordError("wrong_type", f"the record is {_name(record)}, not an object")
    return to_document(record, input_name, number)


def to_document(record: dict[str, Any], input_name: str, number: int) -> Document:
    """As :func:`decode_document`, of a decoded record, which it uses up."""
    if "lang" in record and record.keys() >= _OWN_FIELDS and all(type(record[name]) is str for name in _OWN_STRINGS):
        return _own(record)
    for field in TEXT_FIELDS:
        if field in record:
            break
    else:
        detail = f"no field {', '.join(TEXT_FIELDS)}; its fields: {', '.join(list(record)[:8]) or 'none'}"
        raise BadRecordError("no_text", detail)
    text = record.pop(field)
    if type(text) is not str:
        raise BadRecordError("wrong_type", f"'{field}' is {_name(text)}, not a string")
    meta = _merge_meta(record)
    is_wudao = field == "content"
    source = name_source(_source(meta, ("dataType",) if is_wudao else _SOURCE_FIELDS), input_name, is_wudao)
    return Document(document_id(input_name, number), text, source, "", encode_meta(meta))


def decode_json(data: bytes) -> Any:
    """Decode JSON strictly; raises :class:`BadRecordError` with what is wrong."""
    try:
        return _decoder.decode(data)
    except UnicodeDecodeError as error:
        raise BadRecordError("invalid_utf8", f"invalid UTF-8: {error.reason}") from None
    except RecursionError:
        raise BadRecordError("too_deep", "the JSON is nested too deeply") from None
    except (msgspec.DecodeError, ValueError) as error:
        if _has_lone_surrogate(data):
            raise BadRecordError("lone_surrogate", r"half of a \u surrogate pair stands alone") from None
        raise BadRecordError("malformed_json", str(error)) from None


def _has_lone_surrogate(data: bytes) -> bool:
    """Whether the record is sound but for a lone surrogate, which only a lenient parser lets through."""
    if not _SURROGATE.search(data):
        return False
    try:
        text = json.dumps(json.loads(data), ensure_ascii=False)
    except (ValueError, RecursionError):
        return False
    return any("\ud800" <= character <= "\udfff" for character in text)


def encode_meta(meta: dict[str, Any]) -> str:
    """The ``meta`` column's JSON of a mapping."""
    return _encoder.encode(meta).decode() if meta else "{}"


def _own(record: dict[str, Any]) -> Document:
    meta = record["meta"]
    meta = meta if type(meta) is dict else _parse_meta(meta) or {"meta": meta}
    extra = {name: value for name, value in record.items() if name not in _OWN_FIELDS}
    return Document(record["id"], record["text"], record["source"], record["lang"], encode_meta({**extra, **meta}))


def _name(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _merge_meta(record: dict[str, Any]) -> dict[str, Any]:
    """Put the record's other fields and those of its ``meta`` on one level, unless a name would clash."""
    if "meta" not in record:
        return record
    value = record.pop("meta")
    meta = value if type(value) is dict else _parse_meta(value)
    if meta is None:
        return {**record, "meta": value}
    if record.keys().isdisjoint(meta):
        return {**record, **meta}
    return {**record, "meta": meta}


def _parse_meta(value: Any) -> dict[str, Any] | None:
    """The mapping that a JSON string holds (some Pile shards keep ``meta`` so), or None."""
    if value is None:
        return {}
    if type(value) is str and value.lstrip()[:1] == "{":
        try:
            parsed = decode_json(value.encode())
        except BadRecordError:
            return None
        return parsed if type(parsed) is dict else None
    return None


def _source(meta: dict[str, Any], names: Sequence[str]) -> str:
    """Take out of ``meta`` what the first of its fields ``names`` that says something says."""
    for name in names:
        if type(meta.get(name)) is str and meta[name]:
            found: str = meta.pop(name)
            return found
    return ""


def name_source(said: str, input_name: str, is_wudao: bool) -> str:
    """The source of a document whose record says ``said`` of it, or nothing."""
    if is_wudao:
        return f"WuDao/{said}" if said else "WuDao"
    return said or input_name
