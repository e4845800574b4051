"""Checkpoints of GLM-130B and GLM-10B: ``layout.py`` says which part holds what, ``parts.py`` reads them,
``stage.py`` writes them into our folder and out of it."""

from glm_data.megatron.options import ImportOptions

__all__ = ["ImportOptions"]
