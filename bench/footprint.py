"""The cost of the sidecar beside its bare libraries: `python -m bench.footprint`.

Compares memory, start-up time and requests a second with a program that only imports the same libraries and serves one
aiohttp handler. Also measures processor time and Redis commands of an idle leader. One run gives all ratios.
"""

import asyncio
import compileall
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import psutil

from ops.local.servers import RedisServer, free_port

STARTS = 7
QUESTIONS = 3000
IDLE = 20.0
"""Seconds for which an idle leader is watched."""

BARE = """
import asyncio, json, sys
import prometheus_client, redis.asyncio, uvloop
from aiohttp import web
async def handler(_):
    return web.Response(body=json.dumps({"is_leader": True}).encode(), content_type="application/json")
async def main():
    app = web.Application()
    app.router.add_get("/is-leader/bench", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(sys.argv[1])).start()
    await asyncio.Event().wait()
uvloop.run(main())
"""


def start(command: list[str], port: int, environment: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], float]:
    """Start a server; returns the process and the seconds until it listened."""
    began = time.perf_counter()
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.002)
        else:
            return process, time.perf_counter() - began


async def questions_a_second(session: aiohttp.ClientSession, port: int) -> float:
    """Send one request after the other over one connection."""
    began = time.perf_counter()
    for _ in range(QUESTIONS):
        async with session.get(f"http://127.0.0.1:{port}/is-leader/bench") as answer:
            await answer.read()
    return QUESTIONS / (time.perf_counter() - began)


async def main(redis_url: str) -> None:
    """Measure and print."""
    commands = {"bare": [sys.executable, "-c", BARE], "sidecar": [sys.executable, "-m", "sidecar"]}
    starts: dict[str, list[float]] = {name: [] for name in commands}
    memory: dict[str, list[float]] = {name: [] for name in commands}
    rates: dict[str, list[float]] = {name: [] for name in commands}
    async with aiohttp.ClientSession() as session:
        for number in range(STARTS):
            for name, command in commands.items():
                port = free_port()
                environment = {
                    "REDIS_URL": redis_url, "LEASES": "bench", "FAILOVER_GUARD": "false", "LOG_LEVEL": "error",
                    "CONTROL_BIND": f"127.0.0.1:{port}", "METRICS_BIND": f"127.0.0.1:{free_port()}",
                }  # fmt: skip
                process, took = start([*command, str(port)] if name == "bare" else command, port, environment)
                try:
                    starts[name].append(took)
                    rates[name].append(await questions_a_second(session, port))
                    memory[name].append(psutil.Process(process.pid).memory_full_info().pss / 2**20)
                    if name == "sidecar" and number == STARTS - 1:
                        await idle(process.pid, port, redis_url, session)
                finally:
                    process.terminate()
                    process.wait()
            print(f"\r{number + 1}/{STARTS} starts each", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(f"{'':30}{'bare':>10}{'sidecar':>10}{'ratio':>8}")
    for title, values in (("memory, MB (PSS)", memory), ("start, s", starts), ("questions a second", rates)):
        bare, ours = statistics.median(values["bare"]), statistics.median(values["sidecar"])
        print(f"{title:30}{bare:10.2f}{ours:10.2f}{ours / bare:8.2f}")


async def idle(pid: int, port: int, redis_url: str, session: aiohttp.ClientSession) -> None:
    """Print the cost of a leader with one long-polling client."""
    from redis.asyncio import Redis

    process, redis = psutil.Process(pid), Redis.from_url(redis_url)
    url = f"http://127.0.0.1:{port}/is-leader/bench"
    version = ""

    async def commands() -> int:
        stats = await redis.info("commandstats")
        return sum(stats[name]["calls"] for name in ("cmdstat_eval", "cmdstat_ping") if name in stats)

    before, cpu, began = await commands(), process.cpu_times(), time.perf_counter()
    while time.perf_counter() - began < IDLE:
        query = {"wait": "2", "version": version} if version else {}
        async with session.get(url, params=query) as answer:
            version = (await answer.json())["version"]
    spent = process.cpu_times()
    seconds = time.perf_counter() - began
    used = spent.user + spent.system - cpu.user - cpu.system
    made = await commands() - before
    await redis.aclose()
    share, rate = 100 * used / seconds, 10 * made / seconds
    print(f"\ridle leader with a client: {share:.2f} % of a core, {rate:.1f} commands in 10 s")


if __name__ == "__main__":
    for package in ("runtime", "sidecar"):  # as in the image, which has compiled files of the libraries too
        compileall.compile_dir(package, quiet=1)
    with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder)) as server:
        asyncio.run(main(server.url))
