"""The clock that all deadlines use."""

import sys
import time

import pytest

from runtime.clock import elapsed


@pytest.mark.skipif(sys.platform != "linux", reason="CLOCK_BOOTTIME exists only on Linux")
def test_elapsed_time_includes_suspension_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "clock_gettime", {time.CLOCK_BOOTTIME: 7.5}.__getitem__)
    assert elapsed() == 7.5
