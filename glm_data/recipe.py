"""Recipes: a YAML file that says which stages run with which options, as steps that a shell can perform one by one.

::

    inputs: [shards/pile, shards/wudao]     files, folders or patterns, relative to the recipe or the working directory
    filter: {}                              a section runs its stage; what it does not say has the room's default
    dedupe: {threshold: 0.7}
    decontaminate: {evaluation: evaluation.yaml}
    tokenizer: {vocab_size: 4096}
    tokenize: {}
    mip: {manifest: mip/mixture.yaml}
    pack: {mip_ratio: 0.05}
    train: {steps: 200}
    quantize: {}
    infill: ["The quick brown fox [MASK] over the lazy dog."]
    generation: {max_length: 32}            how the prompts of 'infill' are answered

Each stage has a folder of its own name in the run's folder and reads the nearest earlier one that makes what it needs:
``filter -> dedupe -> decontaminate -> tokenizer, tokenize -> pack -> train -> quantize``, with ``mip`` beside them. A
stage of a run and the command of the same name do the same thing: both go through :func:`perform`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from glm_data.config import Config, Doc, from_mapping, load_yaml
from glm_data.errors import ConfigError
from glm_data.stage import Success

STAGES = ("filter", "dedupe", "decontaminate", "tokenizer", "tokenize", "mip", "pack", "train", "quantize")
CORPUS_STAGES = ("filter", "dedupe", "decontaminate", "tokenizer", "tokenize", "mip", "pack")
"""Those that run on Beam and so take a runner and workers."""
NEEDS_TORCH = frozenset({"train", "quantize"})
RAW = "raw"
_PATHS = {"decontaminate": "evaluation", "mip": "bans", "pack": "bans"}
"""Options that are, or may be, the path of a YAML file, which a recipe may give relative to itself."""

Section = dict[str, Any] | None | msgspec.UnsetType


class DemoInput(Config, frozen=True):
    """The bundled corpus as raw shards, written into the run's folder."""

    seed: Annotated[int, Doc("seed of what is varied and planted")] = 0


class Recipe(Config, frozen=True):
    """A recipe's sections; those of stages stay plain until :func:`load` reads them with the room's own struct."""

    inputs: tuple[str, ...] = ()
    demo_input: DemoInput | None = None
    runner: dict[str, Any] | None = None
    filter: Section = msgspec.UNSET
    dedupe: Section = msgspec.UNSET
    decontaminate: Section = msgspec.UNSET
    tokenizer: Section = msgspec.UNSET
    tokenize: Section = msgspec.UNSET
    mip: Section = msgspec.UNSET
    pack: Section = msgspec.UNSET
    train: Section = msgspec.UNSET
    quantize: Section = msgspec.UNSET
    infill: tuple[str, ...] = ()
    generation: dict[str, Any] | None = None


@dataclass(frozen=True)
class Loaded:
    """A recipe that was read and checked in full."""

    path: Path
    recipe: Recipe
    options: Mapping[str, msgspec.Struct]
    """Options by stage, in running order: the sections that the recipe has."""
    mip_manifest: Path | None
    generation: Any
    """``GenerationOptions`` for the prompts of ``infill``, or None for the defaults."""

    def given(self, stage: str) -> tuple[str, ...]:
        """The names of the options that the recipe's section of a stage gives."""
        section = getattr(self.recipe, stage)
        return tuple(section) if isinstance(section, dict) else ()


@dataclass(frozen=True, kw_only=True)
class Step:
    """One stage with everything it needs. ``inputs`` are shards or the folder of an earlier stage."""

    stage: str
    inputs: tuple[str, ...]
    out: Path
    options: Any
    """Of the stage's own struct, see :func:`options_type`."""
    tokenizer: Any = None
    """Folder of a tokenizer, for the stages that use one (tokenize, mip, pack)."""
    mip: Path | None = None
    pack: Path | None = None
    """Rows that quantising looks at."""


# --- what each stage is -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Stage:
    options: str
    perform: Callable[[Step, Any, bool], Success]


def options_type(stage: str) -> type[msgspec.Struct]:
    """The option struct of a stage (imports its room)."""
    kind: type[msgspec.Struct] = _attribute(_KINDS[stage].options)
    return kind


def perform(step: Step, runner: Any, *, overwrite: bool = False) -> Success:
    """Run one step to its end, or find it finished; ``runner`` is a ``RunnerOptions``, used by corpus stages."""
    return _KINDS[step.stage].perform(step, runner, overwrite)


def _attribute(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _filter(step: Step, runner: Any, overwrite: bool) -> Success:
    from pipelines import filter as pipeline

    return pipeline.run(step.inputs, step.out, step.options, runner, overwrite=overwrite)


def _dedupe(step: Step, runner: Any, overwrite: bool) -> Success:
    from pipelines import dedupe as pipeline

    return pipeline.run(step.inputs, step.out, step.options, runner, overwrite=overwrite)


def _decontaminate(step: Step, runner: Any, overwrite: bool) -> Success:
    from pipelines import decontaminate as pipeline

    return pipeline.run(step.inputs, step.out, step.options, runner, overwrite=overwrite)


def _tokenizer(step: Step, runner: Any, overwrite: bool) -> Success:
    from pipelines import train_tokenizer as pipeline

    return pipeline.run(step.inputs, step.out, step.options, runner, overwrite=overwrite)


def _tokenize(step: Step, runner: Any, overwrite: bool) -> Success:
    from pipelines import tokenize_documents as pipeline

    return pipeline.run(step.inputs, step.tokenizer, step.out, step.options, runner, overwrite=overwrite)


def _mip(step: Step, runner: Any, overwrite: bool) -> Success:
    from pipelines import render_mip as pipeline

    options = step.options
    if step.tokenizer is not None and not options.tokenizer:
        options = msgspec.structs.replace(options, tokenizer=str(step.tokenizer))
    return pipeline.run(Path(step.inputs[0]), step.out, options, runner, overwrite=overwrite)


def _pack(step: Step, runner: Any, overwrite: bool) -> Success:
    from pipelines import pack as pipeline

    folder, given = Path(step.inputs[0]), {"tokenizer": step.tokenizer, "mip": step.mip}
    return pipeline.run(folder, step.out, step.options, runner, **given, overwrite=overwrite)


def _train(step: Step, runner: Any, overwrite: bool) -> Success:
    from glm_data.training.stage import train_stage

    return train_stage(Path(step.inputs[0]), step.out, step.options, overwrite=overwrite)


def _quantize(step: Step, runner: Any, overwrite: bool) -> Success:
    from glm_data.int4.stage import quantize_stage

    return quantize_stage(Path(step.inputs[0]), step.out, step.options, pack=step.pack, overwrite=overwrite)


_KINDS = {
    "filter": _Stage("glm_data.filters:FilterOptions", _filter),
    "dedupe": _Stage("glm_data.dedupe:DedupeOptions", _dedupe),
    "decontaminate": _Stage("glm_data.decontaminate:DecontaminateOptions", _decontaminate),
    "tokenizer": _Stage("glm_data.vocabulary:TokenizerOptions", _tokenizer),
    "tokenize": _Stage("glm_data.packing.tokenized:TokenizeOptions", _tokenize),
    "mip": _Stage("glm_data.mip:MipOptions", _mip),
    "pack": _Stage("glm_data.packing.options:PackOptions", _pack),
    "train": _Stage("glm_data.training.options:TrainOptions", _train),
    "quantize": _Stage("glm_data.int4:QuantizeOptions", _quantize),
}


# --- reading a recipe -------------------------------------------------------------------------------------------------


def load(path: Path) -> Loaded:
    """Read a recipe and check every section against its room's options; raises :class:`ConfigError`."""
    recipe = load_yaml(path, Recipe)
    sections = {stage: getattr(recipe, stage) for stage in STAGES}
    present = {stage: dict(section or {}) for stage, section in sections.items() if section is not msgspec.UNSET}
    _check(path, recipe, present)
    manifest = _take_manifest(path, present)
    present = {stage: _with_paths(path, stage, values) for stage, values in present.items()}
    options = {
        stage: from_mapping(values, options_type(stage), f"{path}: {stage}") for stage, values in present.items()
    }
    return Loaded(path, recipe, options, manifest, _generation(path, recipe))


def _generation(path: Path, recipe: Recipe) -> Any:
    if recipe.generation is None:
        return None
    from glm_data.generation.options import GenerationOptions

    return from_mapping(recipe.generation, GenerationOptions, f"{path}: generation")


def section(path: Path, stage: str) -> dict[str, Any]:
    """The plain options that the recipe at ``path`` has for ``stage``, for a stand-alone command to start from."""
    value = getattr(load_yaml(path, Recipe), stage)
    values = dict(value) if isinstance(value, dict) else {}
    values.pop("manifest", None)
    return _with_paths(path, stage, values)


def _with_paths(recipe: Path, stage: str, values: dict[str, Any]) -> dict[str, Any]:
    """A section whose file, if it names one, is found from the working directory."""
    given = values.get(_PATHS.get(stage, ""))
    if not isinstance(given, str) or not given.endswith((".yaml", ".yml")):
        return values
    return {**values, _PATHS[stage]: resolve(recipe, given)}


def _take_manifest(path: Path, present: dict[str, dict[str, Any]]) -> Path | None:
    if "mip" not in present:
        return None
    manifest = present["mip"].pop("manifest", None)
    if not isinstance(manifest, str):
        raise ConfigError(f"{path}: mip: needs 'manifest', the path of a mixture file.")
    found = Path(resolve(path, manifest))
    if not found.is_file() and (bundled := _bundled(manifest)) is not None:
        return bundled
    if not found.is_file():
        raise ConfigError(f"{path}: mip: there is no file '{manifest}' beside the recipe or in the working directory.")
    return found


def _bundled(name: str) -> Path | None:
    """A file that comes with the package, so that a copy of a bundled recipe runs from anywhere."""
    import manifests

    try:
        return manifests.path(name)
    except FileNotFoundError:
        return None


def resolve(recipe: Path, given: str) -> str:
    """A path of a recipe: as it stands if absolute, else beside the recipe if it is there, else as typed."""
    if Path(given).is_absolute():
        return given
    beside = recipe.parent / given
    if any(mark in given for mark in "*?["):
        return str(beside) if any(recipe.parent.glob(given)) else given
    return str(beside) if beside.exists() else given


def _check(where: Path, recipe: Recipe, present: Mapping[str, Any]) -> None:
    """Refuse a recipe that cannot run to its end, before anything runs."""
    if not recipe.inputs and recipe.demo_input is None:
        raise ConfigError(f"{where}: needs 'inputs', a list of files, folders or patterns to read.")
    if recipe.inputs and recipe.demo_input is not None:
        raise ConfigError(f"{where}: has both 'inputs' and 'demo_input'; give one of them.")
    if not present:
        raise ConfigError(f"{where}: has no stage; add a section such as 'filter: {{}}' ({', '.join(STAGES)}).")
    needs = {"tokenize": "tokenizer", "pack": "tokenize", "train": "pack", "quantize": "train"}
    for stage, needed in needs.items():
        if stage in present and needed not in present:
            raise ConfigError(f"{where}: '{stage}' needs the section '{needed}' too; add '{needed}: {{}}'.")
    if "mip" in present and "pack" not in present:
        raise ConfigError(f"{where}: 'mip' needs the section 'pack', which mixes it in.")
    if recipe.infill and "train" not in present:
        raise ConfigError(f"{where}: 'infill' needs the section 'train', and 'quantize' to run in INT4.")


# --- steps ------------------------------------------------------------------------------------------------------------


def steps(loaded: Loaded, folder: Path) -> Iterator[Step]:
    """The steps of a recipe in running order, each writing to ``folder/<stage>``."""
    corpus = _raw_inputs(loaded, folder)
    tokenizer, mip = folder / "tokenizer", folder / "mip" if "mip" in loaded.options else None
    for stage, options in loaded.options.items():
        out = folder / stage
        if stage in ("filter", "dedupe", "decontaminate"):
            yield Step(stage=stage, inputs=corpus, out=out, options=options)
            corpus = (str(out),)
        elif stage == "tokenizer":
            yield Step(stage=stage, inputs=corpus, out=out, options=options)
        elif stage == "tokenize":
            yield Step(stage=stage, inputs=corpus, out=out, options=options, tokenizer=tokenizer)
        elif stage == "mip":
            own = tokenizer if "tokenizer" in loaded.options else None
            inputs = (str(loaded.mip_manifest),)
            yield Step(stage=stage, inputs=inputs, out=out, options=options, tokenizer=own)
        elif stage == "pack":
            inputs = (str(folder / "tokenize"),)
            yield Step(stage=stage, inputs=inputs, out=out, options=options, tokenizer=tokenizer, mip=mip)
        else:
            before = "pack" if stage == "train" else "train"
            pack = folder / "pack" if getattr(options, "calibration", "none") != "none" else None
            yield Step(stage=stage, inputs=(str(folder / before),), out=out, options=options, pack=pack)


def _raw_inputs(loaded: Loaded, folder: Path) -> tuple[str, ...]:
    if loaded.recipe.demo_input is not None:
        return str(folder / RAW / "pile"), str(folder / RAW / "wudao")
    return tuple(resolve(loaded.path, given) for given in loaded.recipe.inputs)


def model_folder(loaded: Loaded, folder: Path) -> Path:
    """The folder of the model to infill with: INT4 if the recipe quantises, else as trained."""
    return folder / ("quantize" if "quantize" in loaded.options else "train")


def command(step: Step, flags: Sequence[str] | None, recipe: Path | None = None) -> list[str]:
    """The stand-alone command line of a step; ``flags`` say its options, None that only ``recipe`` can say them."""
    verb = {"tokenizer": ["tokenizer", "train"], "mip": ["mip", "render"]}.get(step.stage, [step.stage])
    arguments = ["glm-data", *verb, *step.inputs]
    if step.tokenizer is not None:
        arguments += ["--tokenizer", str(step.tokenizer)]
    if step.mip is not None:
        arguments += ["--mip", str(step.mip)]
    if step.pack is not None:
        arguments += ["--pack", str(step.pack)]
    arguments += ["--out", str(step.out)]
    if flags is not None:
        return arguments + list(flags)
    return [*arguments, "--recipe", str(recipe)]
