from collections.abc import AsyncIterator

import pytest

from tests.support.hostile_sidecar import FakeSidecar, fake_sidecar


@pytest.fixture
async def sidecar() -> AsyncIterator[FakeSidecar]:
    async with fake_sidecar() as fake:
        yield fake
