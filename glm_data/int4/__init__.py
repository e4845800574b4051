"""INT4 weights: ``quantize.py`` is the arithmetic, ``linear.py`` the layer, ``stage.py`` the stage."""

from glm_data.int4.options import QuantizeOptions

__all__ = ["QuantizeOptions"]
