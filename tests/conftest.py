"""What must hold before any test module is imported."""

import os

os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is first imported, which torch's compiler may be the one to do
