"""``torchrun --nproc-per-node N -m glm_data.training PACK --out DIR``: one process of a run over many."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

import msgspec
import torch.distributed as dist
import yaml

from glm_data.config import from_mapping
from glm_data.errors import ConfigError, GlmDataError
from glm_data.progress import in_lines
from glm_data.training.cluster import start_processes, train_parallel
from glm_data.training.options import TrainOptions
from glm_data.training.parallel import Layout
from glm_data.training.stage import pack_data


def main() -> int:
    """Parse the command line and train; the exit code is that of the error, said once by process 0."""
    parser = argparse.ArgumentParser(
        prog="torchrun --nproc-per-node N -m glm_data.training",
        description="Train a GLM on a pack over many processes: pipeline x replicate x shard x tensor of them.",
        epilog="example: torchrun --nproc-per-node 8 -m glm_data.training run/pack --out run/train --pipeline 2 "
        "--shard 2 --tensor 2 --set optimizer=adamw --set batch_rows=64 --set micro_rows=2",
    )
    parser.add_argument("pack", type=Path, help="a finished pack stage")
    parser.add_argument("--out", type=Path, required=True, help="the stage's folder")
    parser.add_argument("--tokenizer", type=Path, help="the tokenizer it was packed with; default: the pack's own")
    for name in msgspec.structs.fields(Layout):
        parser.add_argument(f"--{name.name}", type=int, default=1, help=f"processes: {name.name}")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="an option of glm-data train")
    given = parser.parse_args()
    try:
        options = from_mapping(_options(given.set), TrainOptions, "--set")
        layout = Layout(**{field.name: getattr(given, field.name) for field in msgspec.structs.fields(Layout)})
        start_processes(options.device)
        with in_lines(given.out, _say) if dist.get_rank() == 0 else contextlib.nullcontext():
            success = train_parallel(pack_data(given.pack, given.tokenizer), given.out, options, layout)
        if success is not None:
            said = " ".join(check.sentence for check in success.checks)
            _say(f"{success.facts['steps']} steps are done, '{given.out}' holds the model: {said}")
        dist.destroy_process_group()
    except GlmDataError as error:
        if not dist.is_initialized() or dist.get_rank() == 0:
            _say(str(error))
        return error.exit_code
    return 0


def _say(sentence: str) -> None:
    print(f"glm-data: {sentence}", file=sys.stderr, flush=True)  # noqa: T201 - this is the command


def _options(pairs: list[str]) -> dict[str, object]:
    found: dict[str, object] = {"optimizer": "adamw"}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign:
            raise ConfigError(f"--set {pair} is no NAME=VALUE.")
        found[name] = yaml.safe_load(value)
    return found


if __name__ == "__main__":
    sys.exit(main())
