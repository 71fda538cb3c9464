"""The wiring of the sidecar, and its run until the end of its drain."""

import asyncio
import logging
import os
import random
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import uvloop
from aiohttp import web

from runtime.addresses import Address
from runtime.clock import elapsed
from runtime.environment import log_ignored
from runtime.listener import AtOnce, Limits, Listener
from runtime.lookup import Lookups
from runtime.metric_lines import log_metrics
from runtime.stop_signals import stop_signals
from sidecar.control import METRICS_LIMITS, Control, metrics_app
from sidecar.election.candidate import Candidate
from sidecar.election.lease import Lease
from sidecar.identity import instance_id
from sidecar.redis.connection import Connector
from sidecar.redis.history import Histories
from sidecar.redis.server_facts import ServerFacts
from sidecar.redis.store import RedisStore
from sidecar.redis.watch import RedisWatch
from sidecar.server_kind import Sentinels, late_demotion_of
from sidecar.settings import Settings, SettingsError, read
from sidecar.telemetry import Telemetry, log_to_stdout

log = logging.getLogger(__name__)

LOGGED_METRICS = ("sidecar_leading", "sidecar_redis_up")
"""Metrics that are also logged, once a minute. CloudWatch's alarms read them from the log (ops/aws)."""


def run(environment: Mapping[str, str], ignored: Sequence[str] = ()) -> int:
    """Run the sidecar until SIGTERM or SIGINT, give up its leases, and return the exit status.

    Args:
        environment: the settings.
        ignored: names of variables that were removed from the environment, for the log.

    Raises:
        SettingsError: a setting cannot be used, or a listener cannot use its address.
    """
    settings = read(environment)
    log_to_stdout(settings.log_format, settings.log_level)
    log_ignored(log, ignored)
    Connector(settings.redis, settings.kind)
    uvloop.run(_run(settings))
    return 0


async def _run(settings: Settings) -> None:
    lookups = Lookups()
    name = await instance_id(settings.instance_id, settings.metadata_uri, lookups)
    timings = settings.timings
    connect = Connector(settings.redis, settings.kind, lookups=lookups, limit=timings.call_limit)
    uniform = random.Random().uniform  # noqa: S311 - spreads retries
    boot = secrets.token_hex(4)
    fields = {"instance": name, "leases": ",".join(settings.keys), "event": "sidecar_started"}
    log.info("Sidecar %s for Redis at %s", name, settings.redis.place, extra=fields)
    leases = {
        lease: Lease(
            name,
            timings,
            boot=boot,
            now=elapsed(),
            uniform=uniform,
            require_client=settings.require_client,
            campaign=settings.campaign,
            replicated=settings.min_replicas > 0,
        )
        for lease in settings.keys
    }
    if not settings.campaign:
        log.info("CAMPAIGN is false: this task follows only, and never leads")
    store = RedisStore(
        connect,
        name,
        timings,
        clock=elapsed,
        failover_guard=settings.failover_guard,
        min_replicas=settings.min_replicas,
        late_demotion=late_demotion_of(settings.kind),
    )
    telemetry = Telemetry(name, clock=elapsed)
    if connect.login is not None:
        connect.login.when_failed = telemetry.credentials_failed
        await connect.login.prepare()
    candidate = Candidate(leases, settings.keys, store, timings, telemetry, clock=elapsed, uniform=uniform)
    watch = RedisWatch(
        connect.companion, settings.keys, candidate.noticed, candidate.step_down_noticed,
        relay=candidate.relay_noticed, limit=timings.call_limit, interval=timings.heartbeat, uniform=uniform,
    )  # fmt: skip
    candidate.choose_watch = watch.choose
    facts = ServerFacts(
        connect.companion, store, candidate.report_server,
        channel=f"{next(iter(settings.keys.values()))}:changed", limit=timings.call_limit,
    )  # fmt: skip
    telemetry.watch(candidate.statuses, store, watch)

    def status() -> dict[str, Any]:
        redis = {
            "address": settings.redis.place,
            "guard": store.guard,
            "eviction_policy": store.eviction_policy,
            "release_notice": store.release_notice,
            "history": store.history,
        }
        return {
            "campaign": settings.campaign,
            "redis": redis,
            "watch": {"mode": watch.mode, "refusal": watch.refusal},
            "keys": settings.keys,
        }

    histories = Histories(connect.companion, settings.keys, limit=timings.call_limit, clock=elapsed)
    control = Control(
        candidate, name, timings, boot=boot, clock=elapsed, status=status, history=histories.terms
    )  # fmt: skip
    metrics = metrics_app(telemetry.registry, control.healthz, control.leader)
    with stop_signals(lambda _: candidate.drain()):
        listeners = [
            await _listen("CONTROL_BIND", settings.control, control.app(), Limits(), control.answer_at_once),
            await _listen("METRICS_BIND", settings.metrics, metrics, METRICS_LIMITS),
        ]
        try:
            async with asyncio.TaskGroup() as tasks:
                logging_metrics = log_metrics(telemetry.registry, LOGGED_METRICS)
                beside = [tasks.create_task(each) for each in (watch.run(), facts.run(), logging_metrics)]
                if isinstance(settings.kind, Sentinels):
                    beside.append(tasks.create_task(connect.follow(store.abort, timings.heartbeat)))
                if connect.login is not None:
                    beside.append(tasks.create_task(connect.login.run()))
                await candidate.run()
                for task in beside:
                    task.cancel()
        finally:
            for listener in listeners:
                await listener.cleanup()
    fields = {"instance": name, "event": "sidecar_stopped"}
    if kept := ", ".join(candidate.not_given_up):
        text = "Sidecar %s stops without an answer of Redis about %s: the key may remain for up to %g s"
        log.warning(text, name, kept, timings.ttl, extra=fields)
    else:
        log.info("Sidecar %s has given up its leases", name, extra=fields)


async def _listen(
    setting: str, address: Address, app: web.Application, limits: Limits, at_once: AtOnce | None = None
) -> web.AppRunner:
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.2)
    await runner.setup()
    try:
        await Listener(runner, address, limits, at_once).start()
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise SettingsError(f"{setting}: cannot listen on {address}: {why}") from None
    return runner
