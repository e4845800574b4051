"""A worker process of the local runner: Beam's SDK harness, quiet, and gone as soon as its driver is.

Started by path, not by name, as ``python -P .../pipelines/worker.py SETTINGS``; SETTINGS is a JSON file with the
driver's ``sys_path``, so that a worker can import whatever the driver can. Beam's own worker writes dozens of lines to
the terminal and, on Ctrl-C, a traceback for each process; errors travel through :mod:`pipelines.marks` instead.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

_WATCH_SECONDS = 0.5


def main(settings_path: Path) -> None:
    """Serve the driver named by Beam's environment variables until it closes the connection."""
    parent = os.getppid()
    (settings_path.parent / f"worker-{os.getpid()}").touch()
    sys.path[:] = json.loads(settings_path.read_text(encoding="utf-8"))["sys_path"]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver decides what follows
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    _set_up_logging()
    try:
        from apache_beam.runners.worker import sdk_worker_main

        sdk_worker_main.main(sys.argv)
    except ImportError as error:
        sys.stderr.write(f"error: a worker process cannot start: {error}\n")
        os._exit(1)
    except Exception:  # the driver went away or closed the channel; it says so itself
        os._exit(1)


def _leave_with(parent: int) -> None:
    # A driver killed with -9 cannot tell its workers; two writers in one stage folder must never meet.
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)


def _set_up_logging() -> None:
    # Before Beam is imported: it logs while importing, which would configure logging for good. Without the
    # descriptor its harness does not send records to the driver, which would print each as a protobuf text.
    os.environ.pop("LOGGING_API_SERVICE_DESCRIPTOR", None)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.addFilter(lambda record: "apache_beam" not in record.pathname)
    logging.getLogger().addHandler(handler)
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL + 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
