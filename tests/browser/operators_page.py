"""The operators' page in Chromium. `make browser` runs these tests.

The file is not named test_*.py, so that `make test` needs no Chromium.
"""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
import redis

from ops.local.servers import RedisServer
from tests.service.conftest import new_sidecar
from tests.support.chromium import ChromiumError, Page
from tests.support.fake_sidecar import ReportingSidecar, lease_report
from tests.support.processes import Service, Sidecar

__all__ = ["new_sidecar"]

LEASE, OTHER = "background_services", "daily_scheduler"
HOSTILE = "<img src=x onerror=document.title='harmed'><script>document.title='harmed'</script>"


def card(lease: str = LEASE) -> str:
    """Return the JavaScript expression for a lease's card."""
    return f"[...document.querySelectorAll('.lease')].find((card) => card.textContent.includes({json.dumps(lease)}))"


def shown(part: str, lease: str = LEASE) -> str:
    """Return the JavaScript expression for the text of a part of a lease's card: empty if the part is not shown."""
    found = f"{card(lease)}?.querySelector('[data-part={part}]')"
    return f"({found}?.checkVisibility() ? {found}.textContent : '')"


def holder_is(holder: str, lease: str = LEASE) -> str:
    return f"{shown('holder', lease)} === {json.dumps(holder)}"


def problem(words: str) -> str:
    return f"document.querySelector('#problems').textContent.includes({json.dumps(words)})"


TERMS = (
    f"[...({card()}?.querySelectorAll('.terms li') ?? [])].map((row) => row.textContent.replace(/\\s+/g, ' ').trim())"
)
SEGMENTS = f"{card()}.querySelectorAll('.segment').length"
BAR = f"{card()}.querySelector('[data-part=left]').style.width"
FINE = problem("Nothing is wrong.")


async def remember(page: Page) -> None:
    """Set a mark that a reload would remove."""
    await page.evaluate("window.remembered = true")


async def is_clean(page: Page, service: Service) -> None:
    """Check that the page sent requests only to its own task, was loaded once, and had no error."""
    assert await page.evaluate("window.remembered"), "the page was loaded again"
    urls = {request.url for request in page.requests}
    assert all(url.startswith(f"{service.internal_url}/") for url in urls), urls
    assert [request.kind for request in page.requests].count("Document") == 1
    assert {request.status for request in page.requests if request.status is not None} == {200}
    assert page.errors == []


def past(*minutes: int) -> list[dict[str, Any]]:
    """Return terms of three tasks, newest first. The terms began `minutes` ago, and the newest term still runs."""
    now = datetime.now(UTC)
    return [
        {
            "token": 1000 - number,
            "holder": f"{number % 3:032x}",
            "acquired_at": (now - timedelta(minutes=minute)).isoformat(),
            "released_at": (now - timedelta(minutes=minutes[number - 1])).isoformat() if number else None,
            "end": "released" if number else "holding",
            "reason": "resigned" if number else None,
        }
        for number, minute in enumerate(minutes)
    ]


@pytest.fixture
async def reported(stack: AsyncExitStack) -> ReportingSidecar:
    return await stack.enter_async_context(ReportingSidecar(LEASE, OTHER).listening())


@pytest.fixture
async def task(reported: ReportingSidecar, new_service: Callable[..., Service], stack: AsyncExitStack) -> Service:
    """A task whose sidecar reports the values that the test sets."""
    return await stack.enter_async_context(new_service("one", reported.url))


@pytest.fixture
async def own_redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A Redis that a test may stop."""
    with RedisServer(tmp_path / "redis") as server:
        yield server


async def test_the_page_stays_correct_while_the_leader_changes(
    page: Page, new_sidecar: Callable[..., Sidecar], new_service: Callable[..., Service], stack: AsyncExitStack
) -> None:
    first = await stack.enter_async_context(new_sidecar("one"))
    leader = await stack.enter_async_context(new_service("one", first.url))
    second = await stack.enter_async_context(new_sidecar("two"))
    other = await stack.enter_async_context(new_service("two", second.url))
    await page.navigate(other.internal_url)
    await remember(page)
    await page.wait_for(holder_is("one"))
    await page.wait_for(holder_is("one", OTHER))
    await page.wait_for(FINE)
    assert await page.evaluate(shown("mine")) == ""
    assert "follows" in await page.evaluate(shown("state"))
    await page.wait_for(f"{shown('remaining')}.endsWith('until the lease ends, unless it is renewed')")
    await page.wait_for(f"{TERMS}.length === 1")

    leader.send()
    await page.wait_for(holder_is("two"))
    await page.wait_for(holder_is("two", OTHER))
    assert await leader.end() == 0
    await page.wait_for(f"{shown('mine')} !== ''")
    await page.wait_for(f"{TERMS}.length === 2")
    last, before = await page.evaluate(TERMS)
    assert (last[:4], "so far" in last) == ("two ", True)
    assert (before[:4], "released (resigned)" in before) == ("one ", True)
    assert await page.evaluate(SEGMENTS) == 2
    await page.wait_for(FINE)
    await is_clean(page, other)


async def test_times_and_jobs_update_without_a_change_of_the_leader(
    page: Page, new_sidecar: Callable[..., Sidecar], new_service: Callable[..., Service], stack: AsyncExitStack
) -> None:
    sidecar = await stack.enter_async_context(new_sidecar("one"))
    service = await stack.enter_async_context(new_service("one", sidecar.url))
    await page.navigate(service.internal_url)
    await remember(page)
    await page.wait_for(holder_is("one"))
    for moving in (shown("remaining"), BAR, shown("since"), "document.querySelector('.age').textContent"):
        seen = json.dumps(await page.wait_for(moving))
        await page.wait_for(f"{moving} !== {seen} && {moving} !== ''")
    await page.wait_for("document.querySelectorAll('.job').length === 4")
    await page.wait_for(
        "[...document.querySelectorAll('.job')].every((job) => /Next (tick|run)/.test(job.textContent))"
    )
    await is_clean(page, service)


async def test_a_disabled_lease_and_its_end_are_shown(
    page: Page, redis_server: RedisServer, new_sidecar: Callable[..., Sidecar], new_service: Callable[..., Service],
    stack: AsyncExitStack,
) -> None:  # fmt: skip
    sidecar = await stack.enter_async_context(new_sidecar("one"))
    service = await stack.enter_async_context(new_service("one", sidecar.url))
    await page.navigate(service.internal_url)
    await remember(page)
    await page.wait_for(holder_is("one"))
    key = sidecar.environment["LEASE_KEY"].replace("{name}", LEASE)
    with redis.Redis.from_url(redis_server.url) as client:
        client.set(key, "DISABLED", ex=3600)
        await page.wait_for(holder_is("Disabled"))
        await page.wait_for(problem(f"{LEASE}: disabled"))
        await page.wait_for(f"{shown('remaining')}.startsWith('Disabled for 59 min')")
        assert await page.evaluate(holder_is("one", OTHER))
        client.delete(key)
    await page.wait_for(holder_is("one"))
    await page.wait_for(f"parseFloat({BAR}) > 50")
    await page.wait_for(FINE)
    await is_clean(page, service)


async def test_an_outage_of_redis_is_shown_first_and_the_last_terms_stay(
    page: Page, own_redis: RedisServer, new_sidecar: Callable[..., Sidecar], new_service: Callable[..., Service],
    stack: AsyncExitStack,
) -> None:  # fmt: skip
    sidecar = await stack.enter_async_context(
        new_sidecar(
            "one", REDIS_URL=own_redis.url, LEASE_TTL="6", GRANT_TTL="2", REDIS_TIMEOUT="0.4", HEARTBEAT_INTERVAL="2"
        )
    )
    service = await stack.enter_async_context(new_service("one", sidecar.url))
    await page.navigate(service.internal_url)
    await remember(page)
    await page.wait_for(f"{TERMS}.length === 1")
    own_redis.stop()
    await page.wait_for(problem(f"{LEASE} and {OTHER}: the sidecar of this task cannot use Redis"))
    assert await page.evaluate(shown("holder")) == "Unknown to this task"
    await page.wait_for(f"{shown('history')}.startsWith('The last terms are unknown')")
    assert len(await page.evaluate(TERMS)) == 1
    assert (await page.evaluate("document.title"))[:1] == "("
    own_redis.start()
    await page.wait_for(holder_is("one"))
    await page.wait_for(FINE)
    await is_clean(page, service)


async def test_without_a_leader_the_page_reports_it(page: Page, reported: ReportingSidecar, task: Service) -> None:
    await page.navigate(task.internal_url)
    await remember(page)
    await page.wait_for(holder_is("task-b"))
    reported.leases[LEASE] = lease_report(holder=None)
    await page.wait_for(holder_is("Nobody leads"))
    await page.wait_for(problem(f"{LEASE}: no task leads."))
    assert await page.evaluate(holder_is("task-b", OTHER))
    await is_clean(page, task)


async def test_with_an_older_sidecar_only_the_terms_are_missing(
    page: Page, reported: ReportingSidecar, task: Service
) -> None:
    reported.refusal = 404, {"error": "no such path"}
    await page.navigate(task.internal_url)
    await remember(page)
    await page.wait_for(holder_is("task-b"))
    await page.wait_for(f"{shown('history')} === 'The last terms are unknown: the answer is HTTP 404: no such path'")
    assert await page.evaluate(SEGMENTS) == 0
    assert not await page.evaluate(problem("404"))
    await is_clean(page, task)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
async def test_twenty_terms_fit_on_a_phone_and_on_a_desktop(
    width: int, scheme: Literal["light", "dark"], page: Page, reported: ReportingSidecar, task: Service
) -> None:
    reported.terms[LEASE] = past(*(number**3 + 1 for number in range(20)))
    reported.leases[LEASE] = lease_report(holder=reported.terms[LEASE][0]["holder"])
    await page.viewport(width, 844)
    await page.color_scheme(scheme)
    await page.navigate(task.internal_url)
    await remember(page)
    await page.wait_for(f"{TERMS}.length === 20")
    assert await page.evaluate(shown("count")) == "15 earlier terms"
    assert await page.evaluate("document.documentElement.scrollWidth") == width
    ground = await page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(ground) > 3 * 128) == (scheme == "light")
    await page.evaluate(f"{card()}.querySelector('summary').click()")
    parts = ".problem", ".terms li", ".segment", ".scale span", ".lease", ".job"
    await page.evaluate(f"window.parts = {json.dumps(parts)}.map((name) => document.querySelector(name))")
    polls = sum(request.kind == "Fetch" for request in page.requests)
    await page.wait_for(f"performance.getEntriesByType('resource').length > {polls + 3}")
    assert await page.evaluate(f"{card()}.querySelector('details').open"), "a redraw has closed the list"
    assert await page.evaluate("window.parts.every((part) => part.isConnected)"), "a redraw has replaced a part"
    assert await page.evaluate("document.documentElement.scrollWidth") == width
    await is_clean(page, task)


async def test_untrusted_texts_are_not_interpreted_as_html(
    page: Page, reported: ReportingSidecar, task: Service
) -> None:
    term = past(3)[0] | {"holder": HOSTILE, "end": "released", "released_at": datetime.now(UTC).isoformat()}
    reported.terms[LEASE] = [term | {"reason": HOSTILE}]
    reported.leases[LEASE] = lease_report(holder=HOSTILE, state=HOSTILE, trouble=HOSTILE)
    await page.navigate(task.internal_url)
    await remember(page)
    await page.wait_for(f"{TERMS}.length === 1")
    for text in (shown("holder"), shown("state"), f"{TERMS}[0]", "document.querySelector('#problems').textContent"):
        assert HOSTILE in await page.evaluate(text)
    assert await page.evaluate("document.querySelectorAll('img, main script').length") == 0
    assert "harmed" not in await page.evaluate("document.title")
    await is_clean(page, task)


async def test_the_content_security_policy_blocks_other_requests_and_styles(page: Page, task: Service) -> None:
    await page.navigate(task.internal_url)
    with pytest.raises(ChromiumError, match="TrustedHTML"):
        await page.evaluate("document.body.innerHTML = '<b>text</b>'")
    with pytest.raises(ChromiumError, match="Failed to fetch"):
        await page.evaluate(f"fetch({json.dumps(task.url + '/healthz')}, {{mode: 'no-cors'}})")
    style = "Object.assign(document.createElement('style'), {textContent: 'body { display: none }'})"
    await page.evaluate(f"document.head.append({style})")
    assert await page.evaluate("getComputedStyle(document.body).display") == "block"
    assert any("style-src 'self'" in error for error in page.errors)


async def test_a_task_without_an_answer_is_reported_and_is_shown_again_when_it_answers(
    page: Page, task: Service
) -> None:
    await page.navigate(task.internal_url)
    await remember(page)
    await page.wait_for(holder_is("task-b"))
    task.send()
    assert await task.end() == 0
    await page.wait_for(problem("This task has not answered for"))
    assert await page.evaluate("document.querySelector('#facts').classList.contains('old')")
    task.start()
    await page.wait_for(f"!{problem('This task has not answered for')}")
    assert await page.evaluate("window.remembered")
    assert not await page.evaluate("document.querySelector('#facts').classList.contains('old')")
