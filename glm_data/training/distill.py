"""Distillation: a teacher's soft labels beside the targets, where something is predicted (Hinton et al. 2015).

The loss of a token is ``(1 - share) * cross-entropy + share * temperature^2 * KL(teacher || student)``, both
distributions taken at ``temperature``; its square keeps the two gradients comparable. What is reported as loss stays
the cross-entropy, so that runs with and without a teacher can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from glm_data.errors import InputError, UsageError
from glm_data.model.config import ModelConfig
from glm_data.model.model import GLM
from glm_data.model.store import DESCRIPTION, WEIGHTS, read_description, read_tensors
from glm_data.training.batches import FlatBatch, positions_of
from glm_data.training.head_loss import CHUNK, CHUNK_CUDA
from glm_data.training.losses import attention_of
from glm_data.training.options import TrainOptions


class Teacher(NamedTuple):
    """A model whose distributions are learned from."""

    model: GLM
    share: float
    """Weight of the soft labels against the targets, above 0 and at most 1."""
    temperature: float


def teacher_files(folder: str) -> Sequence[Path]:
    """The files that a teacher is; none for ``""``."""
    if not folder:
        return ()
    read_description(Path(folder))  # says what is wrong if it is no model
    if not (Path(folder) / WEIGHTS).is_file():
        raise InputError(f"the teacher '{folder}' has no {WEIGHTS}; give a finished train folder.")
    return Path(folder) / DESCRIPTION, Path(folder) / WEIGHTS


def load_teacher(options: TrainOptions, config: ModelConfig, fingerprint: str) -> Teacher | None:
    """The teacher that ``options`` name, for a student of ``config``; None if they name none.

    Raises :class:`UsageError` if it has another tokenizer (``fingerprint``) or kind of positions than the student, or
    is quantised, and :class:`InputError` if the folder holds no model.
    """
    if not options.teacher:
        return None
    folder = Path(options.teacher)
    found = read_description(folder)
    if found.quantization is not None:
        raise UsageError(f"the teacher '{folder}' is quantised; give the train folder it was made from.")
    if found.tokenizer != fingerprint:
        raise UsageError(
            f"the teacher '{folder}' was trained with another tokenizer than the pack's (fingerprint "
            f"{found.tokenizer[:12]}…, the pack's {fingerprint[:12]}…); its distributions are over other tokens. Pack "
            "the text with the teacher's tokenizer."
        )
    if positions_of(found.model) != positions_of(config):
        raise UsageError(
            f"the teacher '{folder}' takes {found.model.positions} positions and the student {config.positions}; "
            "choose a student model with the teacher's."
        )
    model = GLM(found.model)
    model.load_state_dict(read_tensors(folder))
    model = model.to(options.device, getattr(torch, options.precision)).eval().requires_grad_(False)
    return Teacher(model, options.teacher_share, options.teacher_temperature)


def distilled_loss(model: GLM, batch: FlatBatch, weights_P: Tensor, teacher: Teacher) -> tuple[Tensor, Tensor]:
    """``(weighted sum of the losses, cross-entropy[P])`` in nats; only the sum carries gradients.

    As in ``head_loss.py`` the scores exist for a chunk of tokens at a time; going back computes them again.
    """
    features_PD = model.features(batch.tokens_T, batch.positions_T, attention_of(model, batch), batch.predict_P)
    head_VD = model.head_weight()
    with torch.no_grad():
        attend = attention_of(teacher.model, batch)
        taught_PE = teacher.model.features(batch.tokens_T, batch.positions_T, attend, batch.predict_P)
    loss, losses = features_PD.new_zeros((), dtype=torch.float32), [weights_P.new_zeros(0)]
    chunk = CHUNK_CUDA if features_PD.is_cuda else CHUNK
    for first in range(0, len(weights_P), chunk):
        part = slice(first, first + chunk)
        given = (features_PD[part], head_VD, taught_PE[part], batch.targets_P[part], weights_P[part], teacher)
        part_loss, part_losses = checkpoint(_chunk_loss, *given, use_reentrant=False)
        loss = loss + part_loss
        losses.append(part_losses.detach())
    return loss, torch.cat(losses)


def _chunk_loss(
    x_CD: Tensor, head_VD: Tensor, taught_CE: Tensor, targets_C: Tensor, weights_C: Tensor, teacher: Teacher
) -> tuple[Tensor, Tensor]:
    scores_CV = F.linear(x_CD, head_VD).float()
    with torch.no_grad():
        wanted_CV = F.log_softmax(teacher.model.head(taught_CE).float() / teacher.temperature, dim=1)
    found_CV = F.log_softmax(scores_CV / teacher.temperature, dim=1)
    soft_C = F.kl_div(found_CV, wanted_CV, reduction="none", log_target=True).sum(1) * teacher.temperature**2
    losses_C = F.cross_entropy(scores_CV, targets_C, reduction="none")
    return torch.dot((1 - teacher.share) * losses_C + teacher.share * soft_C, weights_C), losses_C
