"""The HTTP session of the fault tests. The clock tests need a C compiler, and are left out without one."""

import os
import shutil
from collections.abc import AsyncIterator

import aiohttp
import pytest

collect_ignore = [] if shutil.which("cc") or os.environ.get("CI") else ["test_clock_steps.py"]  # in CI they must run


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session:
        yield session
