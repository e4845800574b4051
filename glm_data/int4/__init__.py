"""INT4 and INT8 weights: ``quantize.py`` is the arithmetic, ``linear.py`` the layer, ``stage.py`` the stage.

The layer runs on ``cpu.py`` (kernels in ``kernel_ir.py`` and ``product_ir.py``), ``torch_op.py`` or ``cuda.py``
(kernels in ``triton_kernels.py``).
"""

from glm_data.int4.options import QuantizeOptions

__all__ = ["QuantizeOptions"]
