"""References of Ray that are finished by hand."""

from __future__ import annotations

from concurrent.futures import Future

import pytest


class Reference:
    """As Ray's: its future is done when the test says so."""

    def __init__(self):
        self.done = Future()

    def future(self):
        return self.done

    def finish(self, result):
        if isinstance(result, BaseException):
            self.done.set_exception(result)
        else:
            self.done.set_result(result)


def died():
    return pytest.importorskip("ray.exceptions").WorkerCrashedError()
