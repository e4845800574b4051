"""A Beam runner that keeps what it was given to run."""

from typing import Any, ClassVar

from pipelines.quiet import import_beam

beam = import_beam()


class KeepingRunner(beam.runners.portability.fn_api_runner.FnApiRunner):
    protos: ClassVar[list[Any]] = []

    def run_pipeline(self, pipeline, options):
        self.protos.append(pipeline.to_runner_api())
        return super().run_pipeline(pipeline, options)
