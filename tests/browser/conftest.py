from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.service.conftest import new_service, samples_template, samples_url, session, stack
from tests.support.chromium import Browser, Page, chromium

__all__ = ["new_service", "samples_template", "samples_url", "session", "stack"]


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with chromium(tmp_path / "chromium") as browser:
        yield browser


@pytest.fixture
async def page(browser: Browser) -> Page:
    return await browser.new_page()
