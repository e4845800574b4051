"""A pool of worker processes for runners that start workers by address: ``python -m pipelines.pool --port 50000``.

Such a runner is given ``--environment_type=EXTERNAL --environment_config=localhost:50000`` and asks the pool on each of
its machines for workers. Beam's own pool listens on all interfaces and starts whatever ``python`` comes first on the
PATH, where a wrong one makes a job wait for ever; this one listens on the machine itself and starts the interpreter it
runs in.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.loopback import on_loopback
from pipelines.quiet import import_beam, quiet_beam


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until interrupted; says its address in one line."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.pool", description="Start workers for an EXTERNAL job.")
    parser.add_argument("--port", type=int, default=50000, help="port on localhost, 0 for a free one (default: 50000)")
    port = parser.parse_args(argv).port
    import_beam()
    from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer

    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with quiet_beam():
        try:
            with on_loopback():
                address, server = BeamFnExternalWorkerPoolServicer.start(use_process=True, port=port)
        except RuntimeError:
            sys.stderr.write(f"error: port {port} on localhost cannot be opened; give another --port.\n")
            return 1
        sys.stdout.write(f"workers at {address}\n")
        sys.stdout.flush()
        try:
            server.wait_for_termination()
        except KeyboardInterrupt:
            server.stop(None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
