"""A `Way` replaces the ports in replies, and a proxy listens only while no fault refuses its connections."""

import asyncio

from tests.chaos.ways import Way


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that replies in two pieces. Its reply names its own port, as MOVED and SENTINEL MASTER do."""
    await reader.readline()
    port = writer.get_extra_info("sockname")[1]
    reply = f"-MOVED 1 127.0.0.1:{port}\r\n$5\r\n{port}\r\n:1{port}\r\n".encode()
    writer.write(reply[:-14])
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.write(reply[-14:])
    writer.close()


async def _asked(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"PING\r\n")
        return await reader.read()
    finally:
        writer.close()


async def test_a_server_port_in_a_reply_is_replaced_with_the_port_of_the_tasks_proxy() -> None:
    async with await asyncio.start_server(_answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Way([port]) as way:
            proxy = way.port_of(port)
            said = await _asked(proxy)
            assert said == f"-MOVED 1 127.0.0.1:{proxy}\r\n$5\r\n{proxy}\r\n:1{port}\r\n".encode()


async def test_a_server_that_two_faults_hide_is_reachable_only_after_both_end() -> None:
    async with await asyncio.start_server(_answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Way([port]) as way:
            await way.refuse([port])
            await way.refuse()
            await way.accept([port])
            assert not way.proxies[port].listens
            await way.accept()
            assert await _asked(way.port_of(port))
