"""The internal listener, for Prometheus, operators and scripts in the VPC. No route changes anything."""

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.aiohttp import make_aiohttp_handler
from prometheus_client.exposition import choose_encoder

from service.api.background_status import BackgroundStatus
from service.api.health import Health
from service.api.internal_openapi import internal_description
from service.api.lease_history import LeaseHistories
from service.api.middleware import Middleware
from service.api.operators_page import add_headers, add_page
from service.api.response_types import document_response, json_response

MAX_BODY = 1024
"""Limit of a request's body, in bytes. No route reads a body."""


class Internal:
    """The internal routes."""

    def __init__(
        self,
        background: BackgroundStatus,
        histories: LeaseHistories,
        health: Health,
        registry: CollectorRegistry,
        middleware: Middleware,
    ) -> None:
        self._background = background
        self._histories = histories
        self._health = health
        self._metrics_handler = make_aiohttp_handler(registry)
        self._middleware = middleware

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = self._middleware.application(MAX_BODY)
        app.on_response_prepare.append(add_headers)
        add_page(app)
        app.router.add_get("/background/status", self._status)
        app.router.add_get("/background/history", self._history)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/openapi.json", document_response(internal_description()))
        return app

    async def _status(self, _: web.Request) -> web.Response:
        return json_response(await self._background.report())

    async def _history(self, _: web.Request) -> web.Response:
        return json_response(await self._histories.report())

    async def _healthz(self, _: web.Request) -> web.Response:
        report = await self._health.report()
        return json_response(report, status=self._health.http_status)

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        try:
            choose_encoder(",".join(request.headers.getall("Accept", ())))
        except TypeError:  # raised by the library for a version that is not a number
            raise web.HTTPNotAcceptable(text="the Accept header asks for a version that does not exist") from None
        return await self._metrics_handler(request)
