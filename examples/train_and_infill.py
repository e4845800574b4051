"""Train a tiny GLM on a pack, quantise it, fill in a blank.

    python examples/train_and_infill.py

Two layers and a hundred steps over one sentence: enough to see the loss fall and the blank filled.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from pack_for_hf_trainer import TEXTS, make_pack

from glm_data.generation.glm import Glm
from glm_data.generation.options import GenerationOptions
from glm_data.int4 import QuantizeOptions
from glm_data.int4.stage import quantize_stage
from glm_data.packing.options import PackOptions
from glm_data.training.options import TrainOptions
from glm_data.training.stage import train_stage

PROMPT = "The quick brown fox [MASK] over the lazy dog."


def train_on(pack: Path, out: Path, options: TrainOptions) -> dict[str, float]:
    """Train on the rows of a pack; returns the first and the last loss, nats a token."""
    facts = train_stage(pack, out, options).facts
    return {name: facts[name] for name in ("first_loss", "last_loss")}


def main(steps: int = 100) -> str:
    """The whole way; returns the prompt with its blank filled."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pack = make_pack(TEXTS, folder / "work", PackOptions(seq_length=256, mask_share=1.0, mask_rate=0.3))
        losses = train_on(pack, folder / "train", TrainOptions(steps=steps, batch_rows=2, norm="pre", shrink=1.0))
        quantize_stage(folder / "train", folder / "int4", QuantizeOptions())
        filled = Glm.load(folder / "int4").infill(PROMPT, GenerationOptions(max_length=16))
    print(f"loss {losses['first_loss']:.2f} -> {losses['last_loss']:.2f} nats a token")
    print(filled.text)
    return filled.text


if __name__ == "__main__":
    main()
