"""Train a tiny GLM on a pack, fill in a blank.

    python examples/train_and_infill.py

Two layers and a hundred steps over one sentence: enough to see the loss fall and the blank filled.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from pack_for_hf_trainer import TEXTS, make_pack

from glm_data.generation.glm import Glm
from glm_data.generation.options import GenerationOptions
from glm_data.packing.options import PackOptions
from glm_data.training.options import TrainOptions
from glm_data.training.stage import train_stage

PROMPT = "The quick brown fox [MASK] over the lazy dog."


def train_and_infill(pack: Path, folder: Path, steps: int) -> str:
    """Train on the rows of a pack in ``folder/train``, then fill the blank of the prompt."""
    options = TrainOptions(steps=steps, batch_rows=2, norm="pre", shrink=1.0, log_every=max(1, steps // 10))
    facts = train_stage(pack, folder / "train", options).facts
    print(f"loss {facts['first_loss']:.2f} -> {facts['last_loss']:.2f} nats a token")
    return Glm.load(folder / "train").infill(PROMPT, GenerationOptions(max_length=16)).text


def main() -> None:
    """The whole way, from texts to a filled blank."""
    with tempfile.TemporaryDirectory() as name:
        pack = make_pack(TEXTS, Path(name) / "work", PackOptions(seq_length=256, mask_share=1.0, mask_rate=0.3))
        print(train_and_infill(pack, Path(name), steps=100))


if __name__ == "__main__":
    main()
