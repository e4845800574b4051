from __future__ import annotations

import pytest

from glm_data.errors import UsageError
from pipelines.portable import check_portable
from pipelines.quiet import import_beam

beam = import_beam()


class Batcher(beam.DoFn):
    def process(self, element):
        self.last = element

    def finish_bundle(self):
        yield beam.transforms.window.GlobalWindows.windowed_value(self.last)


def make_numbers(pipeline):
    return pipeline | "Numbers" >> beam.Create([1, 2, 3])


def one_leaf(pipeline):
    other = pipeline | "Other" >> beam.Create([4])
    numbers = make_numbers(pipeline)
    keyed = numbers | "Key" >> beam.Map(lambda x, extra: (x % 2, x + sum(extra)), beam.pvalue.AsList(other))
    _ = keyed | "Group" >> beam.GroupByKey() | "Flat" >> beam.FlatMap(lambda pair: pair[1])


def two_leaves(pipeline):
    numbers = make_numbers(pipeline)
    _ = numbers | "Left" >> beam.Map(str)
    _ = numbers | "Right" >> beam.Map(repr)


def tagged_outputs(pipeline):
    both = make_numbers(pipeline) | "Split" >> beam.Map(lambda x: x).with_outputs("odd", main="even")
    _ = (both.even, both.odd) | "Join" >> beam.Flatten()


def finish_bundle(pipeline):
    _ = make_numbers(pipeline) | "Batcher" >> beam.ParDo(Batcher())


def batch_elements(pipeline):
    _ = make_numbers(pipeline) | "Batches" >> beam.BatchElements()


def read(pipeline):
    _ = pipeline | "Lines" >> beam.io.ReadFromText(__file__)


def write(pipeline):
    _ = make_numbers(pipeline) | "Text" >> beam.Map(str) | "Lines" >> beam.io.WriteToText("/nowhere/x")


def wait_on(pipeline):
    numbers = make_numbers(pipeline)
    _ = numbers | "Wait" >> beam.transforms.util.WaitOn(numbers | "First" >> beam.Map(str))


def exception_handling(pipeline):
    good, bad = make_numbers(pipeline) | "Divide" >> beam.Map(lambda x: 1 // x).with_exception_handling()
    _ = (good, bad | "Show" >> beam.Map(str)) | "Join" >> beam.Flatten()


def top(pipeline):
    _ = make_numbers(pipeline) | "Top" >> beam.combiners.Top.Largest(2)


def windows(pipeline):
    keyed = make_numbers(pipeline) | "Key" >> beam.Map(lambda x: (0, x))
    _ = keyed | "Window" >> beam.WindowInto(beam.transforms.window.FixedWindows(10)) | beam.GroupByKey()


def state(pipeline):
    keyed = make_numbers(pipeline) | "Key" >> beam.Map(lambda x: (0, x))
    _ = keyed | "Batches" >> beam.GroupIntoBatches(2)


REFUSED = {
    two_leaves: r"2 leaves \('Left', 'Right'\), of which only one would run",
    tagged_outputs: "tagged outputs .* at 'Split/",
    finish_bundle: "finish_bundle .* at 'Batcher'",
    batch_elements: "finish_bundle .* at 'Batches/",
    read: "a beam.io read or write .* at 'Lines",
    write: "finish_bundle .* at 'Lines/Write/",
    wait_on: "WaitOn .* at 'Wait",
    exception_handling: "tagged outputs .* at 'Divide/",
    top: "finish_bundle .* at 'Top/",
    windows: "windows .* at 'Window",
    state: "state or timers .* at 'Batches/",
}


@pytest.mark.parametrize("sent", [False, True], ids=["built", "sent"])
@pytest.mark.parametrize("build", REFUSED, ids=lambda build: build.__name__)
def test_what_dask_would_get_wrong_is_refused(build, sent):
    pipeline = beam.Pipeline(runner="FnApiRunner")
    build(pipeline)
    if sent:  # as Pipeline.run does before it calls a runner of this kind
        pipeline = beam.Pipeline.from_runner_api(
            pipeline.to_runner_api(use_fake_coders=True), pipeline.runner, pipeline.options
        )
    with pytest.raises(UsageError, match=REFUSED[build]) as caught:
        check_portable(pipeline, "dask")
    assert str(caught.value).startswith("the dask runner would silently get this wrong: ")
    assert "Use --runner local" in str(caught.value)


def test_what_dask_does_right_passes():
    pipeline = beam.Pipeline(runner="FnApiRunner")
    one_leaf(pipeline)
    check_portable(pipeline, "dask")


@pytest.mark.parametrize("name", ["local", "flink", "spark", "dataflow", "portable", "apache_beam.some.Runner"])
def test_other_runners_take_everything(name):
    pipeline = beam.Pipeline(runner="FnApiRunner")
    two_leaves(pipeline)
    check_portable(pipeline, name)
