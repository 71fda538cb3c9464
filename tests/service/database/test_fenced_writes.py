"""A stale leader cannot write, wherever it was delayed."""

import asyncio
import signal
import sys
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from service.database.connection import Connection, StaleTerm, StoreError
from service.database.sql import statement
from service.database.store import Store
from tests.service.portfolio.reference import nothing_held, parts
from tests.support.positions import entry
from tests.support.waiting import LIMIT, eventually
from tests.support.work_fakes import FakeTerm

DAY = date(2026, 3, 2)
NOON = datetime(2026, 3, 2, 17, tzinfo=UTC)
VALUES = nothing_held([UUID(int=1)])


@pytest.fixture(autouse=True)
async def portfolio(store: Store) -> None:
    await store.put_positions([entry(1, "A", "1")])


async def write(store: Store, token: int, holder: str = "one") -> None:
    async with store.fenced(FakeTerm(token, holder), VALUES) as writes:
        await writes.live(DAY, NOON)


async def token_of_live(store: Store) -> int | None:
    live = await store.live(UUID(int=1))
    return None if live is None else live.token


async def waits_for_a_lock(statement: "asyncio.Task[None]", raw: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Wait until the task waits for a lock. The caller ensures that no other session waits for a lock."""
    async with asyncio.timeout(20):
        while not await raw.fetchval("select exists (select from pg_locks where not granted)"):
            assert not statement.done(), "the statement did not wait"
            await asyncio.sleep(0.01)


async def test_a_write_before_a_claim_of_the_fence_is_refused(store: Store) -> None:
    with pytest.raises(StaleTerm):
        await write(store, 1)


async def test_a_term_writes_after_claiming_the_fence(store: Store) -> None:
    await store.claim_fence(FakeTerm())
    await write(store, 1)
    assert await token_of_live(store) == 1


async def test_an_older_term_is_refused_once_a_newer_one_has_claimed_the_fence(store: Store) -> None:
    await store.claim_fence(FakeTerm())
    await store.claim_fence(FakeTerm(2, "two"))
    with pytest.raises(StaleTerm):
        await write(store, 1)
    with pytest.raises(StaleTerm):
        await store.claim_fence(FakeTerm())
    assert await token_of_live(store) is None
    assert (await store.fences())["lease"].token == 2


async def test_the_refusal_of_an_older_term_names_both_lasting_causes(store: Store) -> None:
    """The causes are a token in Redis that is behind the database's token, and tasks that run two separate elections.

    The leaders of two elections take the fence from each other.
    """
    await store.claim_fence(FakeTerm(2, "two"))
    with pytest.raises(StaleTerm) as refused:
        await store.claim_fence(FakeTerm(1, "one"))
    text = str(refused.value)
    assert "the database has the token 2 of two" in text
    assert "python -m sidecar fence lease --above 2" in text
    assert "if that holder leads now, the tasks do not share one Redis and LEASE_KEY: docs/redis.md" in text


async def test_an_older_term_of_the_newest_holder_is_refused(store: Store) -> None:
    await store.claim_fence(FakeTerm())
    await store.claim_fence(FakeTerm(2, "one"))
    with pytest.raises(StaleTerm):
        await write(store, 1, "one")
    assert await token_of_live(store) is None


async def test_a_term_that_claims_the_fence_again_is_the_same_term(store: Store) -> None:
    await store.claim_fence(FakeTerm())
    before = await store.fences()
    await store.claim_fence(FakeTerm())
    assert await store.fences() == before


async def test_another_holder_with_the_same_token_is_refused(store: Store) -> None:
    await store.claim_fence(FakeTerm())
    with pytest.raises(StaleTerm):
        await store.claim_fence(FakeTerm(1, "two"))
    with pytest.raises(StaleTerm):
        await write(store, 1, "two")


async def test_leases_do_not_fence_each_other(store: Store) -> None:
    await store.claim_fence(FakeTerm())
    await store.claim_fence(FakeTerm(2, "two", "other"))
    await write(store, 1)


async def test_the_newest_of_many_simultaneous_first_claims_stays(store: Store) -> None:
    await asyncio.gather(
        *(store.claim_fence(FakeTerm(token, "any", "new")) for token in range(1, 20)), return_exceptions=True
    )
    assert (await store.fences())["new"].token == 19


async def test_an_error_in_a_fenced_block_leaves_nothing_behind(store: Store) -> None:
    await store.claim_fence(FakeTerm())
    with pytest.raises(RuntimeError):
        async with store.fenced(FakeTerm(), VALUES) as writes:
            await writes.live(DAY, NOON)
            raise RuntimeError
    assert await token_of_live(store) is None


async def test_the_deletion_of_a_new_portfolio_fails_no_tick(store: Store, raw: Connection) -> None:
    """The portfolio has no live value yet, and its deletion is not committed."""
    await store.put_positions([entry(2, "A", "1")])
    await store.claim_fence(FakeTerm())
    deletion = raw.transaction()
    await deletion.start()
    await raw.execute("delete from portfolio where id = $1", UUID(int=2))
    both = nothing_held([UUID(int=1), UUID(int=2)])
    async with asyncio.timeout(LIMIT), store.fenced(FakeTerm(), both) as writes:
        await writes.live(DAY, NOON)
    await deletion.rollback()
    assert list(await store.live_many([UUID(int=1), UUID(int=2)])) == [UUID(int=1)]
    async with store.fenced(FakeTerm(), both) as writes:
        await writes.live(DAY, NOON)
    assert len(await store.live_many([UUID(int=1), UUID(int=2)])) == 2


async def test_a_claim_waits_for_a_write_in_progress(store: Store, raw: "asyncpg.Connection[asyncpg.Record]") -> None:
    await store.claim_fence(FakeTerm())
    async with store.fenced(FakeTerm(), VALUES) as writes:
        await writes.live(DAY, NOON)
        newer = asyncio.create_task(store.claim_fence(FakeTerm(2, "two")))
        await waits_for_a_lock(newer, raw)
    await newer
    await write(store, 2, "two")
    assert await token_of_live(store) == 2


async def test_a_write_during_a_newer_claim_waits_and_is_refused(
    store: Store, raw: "asyncpg.Connection[asyncpg.Record]", migrated: str
) -> None:
    await store.claim_fence(FakeTerm())
    newer = await asyncpg.connect(migrated)
    try:
        async with newer.transaction():
            await newer.fetchrow(statement("claim_fence"), "lease", 2, "two")
            older = asyncio.create_task(write(store, 1))
            await waits_for_a_lock(older, raw)
        with pytest.raises(StaleTerm):
            await older
    finally:
        await newer.close()
    assert await token_of_live(store) is None


async def test_a_leader_idle_in_its_transaction_does_not_block_the_next_one(migrated: str, store: Store) -> None:
    async with await Store.connect(migrated, idle_limit=2.0) as frozen:
        await frozen.claim_fence(FakeTerm())
        with pytest.raises(StoreError):
            async with frozen.fenced(FakeTerm(), VALUES) as writes:
                await writes.live(DAY, NOON)
                await store.claim_fence(FakeTerm(2, "two"))  # waits until the server has ended the frozen transaction
                await write(store, 2, "two")
                await writes.live(DAY, NOON)
        assert await token_of_live(store) == 2
        with pytest.raises(StaleTerm):
            await write(frozen, 1)


async def test_the_server_ends_a_transaction_that_waits_too_long_for_its_turn(
    migrated: str, store: Store, raw: Connection
) -> None:
    """The transaction holds no fence, but while it is open, vacuum cannot remove replaced row versions."""
    mine = (
        "select count(*) from pg_stat_activity "
        "where backend_xid is not null and datname = current_database() and backend_type = 'client backend'"
    )

    has_ended = False

    async def turn() -> None:
        nonlocal has_ended
        assert await raw.fetchval(mine) == 1
        await eventually(lambda: raw.fetchval(f"select ({mine}) = 0"))
        has_ended = True

    async with await Store.connect(migrated, call_limit=3.0) as frozen:
        await frozen.claim_fence(FakeTerm())
        with pytest.raises(StoreError):
            async with frozen.fenced(FakeTerm(), VALUES, turn):
                raise AssertionError("the block begins although the server has ended the transaction")
    assert has_ended  # a failed wait would raise a StoreError too


async def test_a_leader_frozen_while_it_sends_a_statement_does_not_block_the_next_one(
    migrated: str, store: Store
) -> None:
    """A large batch takes many packets. The server has read the first of them and waits for the rest."""
    await store.claim_fence(FakeTerm())
    frozen = await asyncpg.connect(migrated)
    try:
        await frozen.execute("begin")
        assert await frozen.fetchrow(statement("enter_fence"), "lease", 1, "one", "500", "60000")
        insides: Any = frozen
        insides._transport.write(b"B" + (1_000_000).to_bytes(4) + b"the beginning of a Bind message")
        async with asyncio.timeout(30):
            await store.claim_fence(FakeTerm(2, "two"))
    finally:
        frozen.terminate()


async def test_a_leader_frozen_between_two_messages_of_a_statement_does_not_block_the_next_one(
    migrated: str, store: Store
) -> None:
    """The server waits for the rest of the statement. The wait counts neither as idle time nor as statement time."""
    await store.claim_fence(FakeTerm())
    frozen = await asyncpg.connect(migrated)
    try:
        if frozen.get_server_version().major < 17:
            pytest.skip("POSTGRES_SERVER is older than 17: it has no limit for the whole transaction")
        await frozen.execute("begin")
        assert await frozen.fetchrow(statement("enter_fence"), "lease", 1, "one", "60000", "1000")
        parse = b"\0select 1\0" + bytes(2)
        insides: Any = frozen
        insides._transport.write(b"P" + (4 + len(parse)).to_bytes(4) + parse)
        async with asyncio.timeout(30):
            await store.claim_fence(FakeTerm(2, "two"))
    finally:
        frozen.terminate()


async def test_a_leader_frozen_during_its_copy_does_not_block_the_next_one(migrated: str, store: Store) -> None:
    """No limit of the server ends the wait for the rest of a COPY, so a leader enters the fence only after its COPY."""
    leader = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.service.database.frozen_copy", migrated), stdout=asyncio.subprocess.PIPE
    )
    assert leader.stdout is not None
    try:
        assert await leader.stdout.readline() == b"copying\n"
        leader.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(30):
            await store.claim_fence(FakeTerm(2, "two"))
            await write(store, 2, "two")
    finally:
        leader.kill()
        await leader.wait()
    assert await token_of_live(store) == 2


async def test_lanes_are_committed_together_or_not_at_all(store: Store) -> None:
    await store.put_positions([entry(2, "A", "1")])
    await store.claim_fence(FakeTerm())
    lanes = VALUES, nothing_held([UUID(int=2)])
    with pytest.raises(StoreError):
        async with store.fenced_lanes(FakeTerm(), [*map(parts, lanes)]) as writes:
            await writes[0].live(DAY, NOON)
            await writes[1].live(DAY, NOON)
            await writes[1].history("no kind", DAY, origin="captured", overwrite="none")
    assert await store.live_many([UUID(int=1), UUID(int=2)]) == {}
    async with store.fenced_lanes(FakeTerm(), [*map(parts, lanes)]) as writes:
        await asyncio.gather(*(lane.live(DAY, NOON) for lane in writes))
    assert len(await store.live_many([UUID(int=1), UUID(int=2)])) == 2


async def test_a_stale_term_is_refused_in_every_lane(store: Store) -> None:
    await store.claim_fence(FakeTerm(2, "two"))
    with pytest.raises(StaleTerm):
        async with store.fenced_lanes(FakeTerm(), [parts(VALUES), None]):
            pytest.fail("a stale term is let in")


async def test_each_lane_alone_makes_newer_claims_wait(store: Store, raw: "asyncpg.Connection[asyncpg.Record]") -> None:
    """The server may have ended the transaction of another lane, for example after the leader froze."""
    await store.claim_fence(FakeTerm())
    with pytest.raises(StoreError):
        async with store.fenced_lanes(FakeTerm(), [None, parts(VALUES)]) as writes:
            await raw.fetchval("select pg_terminate_backend($1, 10000)", writes[0]._connection.get_server_pid())
            newer = asyncio.create_task(store.claim_fence(FakeTerm(2, "two")))
            await waits_for_a_lock(newer, raw)
            await writes[1].live(DAY, NOON)
    await newer
    assert await token_of_live(store) == 1


async def test_a_leader_frozen_in_the_middle_of_a_transaction_writes_nothing_when_it_thaws(
    migrated: str, store: Store
) -> None:
    leader = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.service.work.frozen_leader",
        migrated,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert leader.stdin is not None and leader.stdout is not None
    try:
        assert await leader.stdout.readline() == b"writing\n"
        leader.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(30):
            await store.claim_fence(FakeTerm(2, "two"))
        await write(store, 2, "two")
        leader.send_signal(signal.SIGCONT)
        leader.stdin.write(b"go on\n")
        assert await leader.stdout.readline() == b"StoreError\n"  # the server ended the frozen transaction
        assert await leader.stdout.readline() == b"StaleTerm\n"  # the next transaction is refused
        assert await leader.wait() == 0
    finally:
        if leader.returncode is None:
            leader.kill()
            await leader.wait()
    live = await store.live(UUID(int=1))
    assert live is not None
    assert (live.token, live.session_date) == (2, DAY)


async def test_writes_of_different_tokens_never_interleave(
    store: Store, raw: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    """Each write sends a notification with its token. Notifications arrive in the order of the commits."""
    await raw.execute("""
        create function meddle() returns trigger language plpgsql as $$
            begin perform pg_notify('order', new.token::text); return null; end $$;
        create trigger meddle after insert or update on portfolio_live for each row execute function meddle();
    """)
    order: list[int] = []
    await raw.add_listener("order", lambda *notification: order.append(int(str(notification[3]))))

    async def lead(token: int) -> None:
        await eventually(lambda: token == 1 or token - 1 in order)  # until the previous term has written
        await store.claim_fence(FakeTerm(token, f"holder {token}"))
        with pytest.raises(StaleTerm):
            while True:
                await write(store, token, f"holder {token}")

    async with asyncio.TaskGroup() as leaders:
        for token in range(1, 11):
            leaders.create_task(lead(token))
        await eventually(lambda: 10 in order)
        await store.claim_fence(FakeTerm(100, "the last"))
    await raw.fetchval("select 1")
    assert order == sorted(order)
    assert set(order) == set(range(1, 11))


async def test_a_lost_database_raises_a_store_error(migrated: str) -> None:
    nowhere = "postgresql://postgres:secret@127.0.0.1:1/nowhere"
    with pytest.raises(StoreError) as refused:
        await Store.connect(nowhere)
    assert "secret" not in str(refused.value)
    with pytest.raises(StoreError, match="does not exist"):
        await Store.connect(migrated.rsplit("/", 1)[0] + "/nowhere")
