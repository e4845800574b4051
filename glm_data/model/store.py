"""A model's folder: ``model.safetensors``, the ``config.json`` that describes it, and its tokenizer's two files."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from safetensors.torch import load_file, save_file
from torch import Tensor

from glm_data import files
from glm_data.config import Config, Doc, from_mapping
from glm_data.errors import InputError, UsageError
from glm_data.model.config import ModelConfig

WEIGHTS, DESCRIPTION = "model.safetensors", "config.json"
TOKENIZER_FILES = ("tokenizer.model", "tokenizer.json")
FORMAT = "glm-data-model-1"


class Quantization(Config, frozen=True, kw_only=True):
    """How the matrices of a quantised folder are stored; see ``int4/quantize.py``."""

    bits: Annotated[Literal[4, 8], Doc("bits a weight")] = 4
    group: Annotated[int, Doc("columns that share a scale; 0 means a whole row")] = 0
    groups: Annotated[dict[str, int], Doc("the same for matrices of these names, where it differs")] = msgspec.field(
        default_factory=dict
    )
    scale: Annotated[Literal["absmax", "mse"], Doc("rule that chose the scales")] = "mse"
    embedding_bits: Annotated[Literal[8, 16], Doc("bits a weight of the tied embedding: INT8 by rows, or FP16")] = 16


class Description(Config, frozen=True, kw_only=True):
    """The content of ``config.json``."""

    format: Annotated[str, Doc("version of this folder's format")] = FORMAT
    model: ModelConfig
    quantization: Quantization | None = None
    tokenizer: Annotated[str, Doc("fingerprint of the tokenizer the weights were trained with")] = ""
    training: Annotated[dict[str, Any], Doc("options and data the weights come from")] = msgspec.field(
        default_factory=dict
    )


def save_model(folder: Path, tensors: Mapping[str, Tensor], description: Description) -> None:
    """Write weights and description, each atomically, the description last."""
    with files.atomic_path(folder / WEIGHTS) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
    files.write_json(folder / DESCRIPTION, description)


def tokenizer_files(folder: Path) -> list[Path]:
    """The two files of a tokenizer; :class:`InputError` if one is missing."""
    paths = [folder / name for name in TOKENIZER_FILES]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise InputError(f"'{folder}' has no {' and no '.join(missing)}; give the folder of a trained tokenizer.")
    return paths


def copy_files(paths: Iterable[Path], folder: Path) -> None:
    """Copy files into ``folder``, each atomically."""
    for path in paths:
        with files.atomic_path(folder / path.name) as temporary:
            shutil.copyfile(path, temporary)


def read_description(folder: Path) -> Description:
    """Read ``config.json``; raises :class:`UsageError` if the folder holds no model, :class:`InputError` if the file is
    damaged or of another format."""
    path = folder / DESCRIPTION
    try:
        values = files.read_json(path)
    except FileNotFoundError:
        raise UsageError(
            f"'{folder}' holds no model: {DESCRIPTION} is missing; give a train or quantize folder."
        ) from None
    except (OSError, msgspec.DecodeError) as error:
        raise InputError(f"'{path}' cannot be read ({error}); train or quantise again.") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise InputError(f"'{path}' does not describe a model of format {FORMAT}; give a train or quantize folder.")
    return from_mapping(values, Description, str(path))


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Read all weights; raises :class:`InputError` if the file is missing or damaged."""
    path = folder / WEIGHTS
    try:
        return load_file(path)
    except FileNotFoundError:
        raise InputError(f"'{folder}' has no {WEIGHTS}; train or quantise again.") from None
    except Exception as error:  # safetensors raises a type of its own for a damaged file
        raise InputError(f"'{path}' is damaged ({error}); train or quantise again.") from None
