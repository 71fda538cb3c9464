"""The status line of a health check."""

import pytest

from runtime.health_check import is_healthy


@pytest.mark.parametrize("status", ["HTTP/1.1 200 OK", "HTTP/1.0 200", "HTTP/1.1 200"])
def test_the_status_200_is_healthy(status: str) -> None:
    assert is_healthy(status)


@pytest.mark.parametrize("status", ["HTTP/1.1 503 Service Unavailable", "HTTP/1.1 2000", "220 200", "FTP 200", ""])
def test_any_other_answer_is_unhealthy(status: str) -> None:
    assert not is_healthy(status)
