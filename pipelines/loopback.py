"""Keeps Beam's own servers on this machine's loopback interface.

Beam's local runner, its LOOPBACK workers and its worker pools open gRPC ports on all interfaces, without
authentication, while every client is told ``localhost``. The modules that do so reach gRPC through their global
``grpc``; for the time of a block that name stands for a module whose servers take ``localhost`` where they are asked
for all interfaces. gRPC itself, and whoever else uses it in this process, is untouched.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

_WILDCARDS = ("[::]", "0.0.0.0")  # noqa: S104 - what is replaced
_SERVING = (
    "apache_beam.runners.portability.abstract_job_service",
    "apache_beam.runners.portability.fn_api_runner.worker_handlers",
    "apache_beam.runners.portability.local_job_service",
    "apache_beam.runners.worker.worker_pool_main",
)
"""Beam's modules that open ports on all interfaces for clients on this machine."""


@contextlib.contextmanager
def on_loopback() -> Iterator[None]:
    """Within the block Beam opens ports on ``localhost`` alone; blocks may be nested."""
    modules: list[Any] = [importlib.import_module(name) for name in _SERVING]
    before = [module.grpc for module in modules]
    for module in modules:
        module.grpc = _LoopbackGrpc(module.grpc)
    try:
        yield
    finally:
        for module, grpc in zip(modules, before, strict=True):
            module.grpc = grpc


class _Delegate:
    """Everything of ``wrapped`` but what a subclass has itself."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)


class _LoopbackGrpc(_Delegate):
    def server(self, *args: Any, **kwargs: Any) -> Any:
        return _LoopbackServer(self._wrapped.server(*args, **kwargs))


class _LoopbackServer(_Delegate):
    def add_insecure_port(self, address: str) -> int:
        host, _, port = address.rpartition(":")
        port_opened: int = self._wrapped.add_insecure_port(f"localhost:{port}" if host in _WILDCARDS else address)
        return port_opened
