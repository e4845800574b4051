"""What Beam starts as a worker: asks the nursery (:mod:`pipelines.nursery`) for one, and lasts as long as it does.

Started by path, as ``python -I -S .../call_worker.py SOCKET SETTINGS``, and small, as it is started for every worker of
every stage. It sends SETTINGS, its working folder (the driver's) and its environment, in which Beam says whom to serve,
and ends with the worker's code.
"""

from __future__ import annotations

import os
import socket
import sys


def main(address: str, settings: str) -> int:
    """Have a worker started and wait for its end; returns its exit code, 1 if there is no telling."""
    try:
        variables = (name + b"=" + value for name, value in os.environb.items())
        message = b"\0".join([os.fsencode(settings), os.getcwdb(), *variables])  # noqa: PTH109 - pathlib would take its time
        with socket.socket(socket.AF_UNIX) as nursery:
            nursery.connect(address)
            nursery.sendall(len(message).to_bytes(8, "little") + message)
            code = nursery.recv(1)
    except OSError:
        return 1
    return code[0] if code else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
