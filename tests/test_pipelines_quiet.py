"""What Beam's threads die of is not the user's to read, not even after Beam has returned."""

import threading
import time

from pipelines.quiet import quiet_beam


def test_a_worker_that_ends_in_an_error_after_the_run_is_not_heard(capfd):
    from apache_beam.runners.portability import local_job_service

    died = []
    before = threading.excepthook
    worker = local_job_service.SubprocessSdkWorker.__new__(local_job_service.SubprocessSdkWorker)

    def run_late():
        time.sleep(0.3)
        worker.run()  # fails inside Beam: it was never set up

    with quiet_beam(on_thread_error=died.append):
        threading.Thread(name="run_worker", target=run_late).start()
    assert died == ["run_worker"]
    assert threading.excepthook is before
    assert capfd.readouterr() == ("", "")
