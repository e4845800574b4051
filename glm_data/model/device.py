"""Where a network is computed: the device that an option names, if this machine has it."""

from __future__ import annotations

import torch

from glm_data.errors import UsageError


def find_device(name: str) -> torch.device:
    """The device called ``name``; raises :class:`UsageError` if this machine has none."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"there is no device '{name}'; give cpu, cuda, or one GPU of several, as cuda:1.") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        why = f"only {torch.cuda.device_count()} GPUs" if torch.cuda.is_available() else "no GPU that torch can use"
        raise UsageError(f"device '{name}': this machine has {why}; use --device cpu, or see 'glm-data doctor'.")
    return device
