"""The fault tests use whole sidecars. The shim for the server's clock needs a C compiler, which some machines lack."""

import os
import shutil
from collections.abc import AsyncIterator

import aiohttp
import pytest

collect_ignore = [] if shutil.which("cc") or os.environ.get("CI") else ["test_clock_steps.py"]  # CI needs a compiler


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session:
        yield session
