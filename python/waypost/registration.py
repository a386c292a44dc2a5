"""Registers FastAPI, Starlette and Flask applications, and plain programs, for as long as they serve."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from . import _waypost, discovery
from ._health import (
    AppHealth,
    add_flask_fallback,
    add_starlette_routes,
    health_of,
    is_flask,
    is_starlette,
)
from ._lifecycle import HeldSignals, Lifecycle
from ._process import registrations
from ._waypost import Instance

__all__ = ["ServiceRegistration", "get_service_metadata", "register_service"]


class ServiceRegistration:
    """A registration that lasts for as long as the program serves."""

    def __init__(self, lifecycle: Lifecycle, health: AppHealth) -> None:
        self._lifecycle = lifecycle
        self._health = health

    @property
    def service_name(self) -> str:
        """The name of the service."""
        return self._lifecycle.service_name

    @property
    def instance(self) -> Instance | None:
        """What is registered; ``None`` before the program serves and after its end."""
        registrar = self._lifecycle.registrar
        return None if registrar is None else registrar.instance

    @property
    def state(self) -> str:
        """``waiting`` until the program serves; then ``pending``, ``registered`` or ``lost``."""
        registrar = self._lifecycle.registrar
        return "waiting" if registrar is None else registrar.state()[0]

    @property
    def error(self) -> str | None:
        """The latest error of the registry, while it fails."""
        registrar = self._lifecycle.registrar
        return None if registrar is None else registrar.state()[1]

    def deregister(self) -> None:
        """Fails the health endpoint and deregisters, before the end of the program."""
        self._lifecycle.end()


def register_service(
    app: Any = None,
    service_name: str = "",
    port: int = 0,
    version: str | None = None,
    health_check_path: str | None = "/health",
    metadata: Mapping[str, Any] | None = None,
    *,
    address: str | None = None,
    tags: Iterable[str] = (),
    check_interval: str = "10s",
    service_data: Mapping[str, Any] | None = None,
    provider: discovery.ServiceDiscovery | None = None,
    propagation: float = 0.5,
) -> ServiceRegistration:
    """Registers this program while it serves at ``port``.

    ``app`` is a FastAPI, Starlette or Flask application, or ``None`` in any other program. It is
    registered when its port accepts connections. An application without routes for
    ``health_check_path``, ``/readyz`` and ``/livez`` gets them; see
    :func:`waypost.helpers.register_health_check_endpoint`. The registry requests that path every
    ``check_interval``; with ``None`` as the path there is no such check.

    At SIGTERM, or Ctrl-C where the server handles it, the program shuts down in an order that loses no
    request: the health endpoint responds with 503, the instance is deregistered, and after
    ``propagation`` seconds, when all clients have seen that, the server gets the signal. Call this
    function in the main thread, since only that can handle signals. Several workers of a server on
    one port are one instance, which the last of them deregisters.

    ``service_data`` are further data, as :func:`waypost.discovery.register_service` takes them.
    """
    if not service_name:
        raise TypeError("register_service needs a service_name")
    if not 0 < port < 65536:
        raise ValueError(f"port {port} is not valid; use the port that the program listens on")
    health = health_of(app, service_name)
    data: dict[str, Any] = {"port": port, "version": version, "address": address}
    data.update(tags=list(tags), meta=dict(metadata or {}))
    if health_check_path is not None:
        data["check"] = {"http": health_check_path, "interval": check_interval}
    data.update(service_data or {})
    if app is None and health_check_path is not None and "check" not in (service_data or {}):
        # Without an application, nothing is known to serve the path.
        data["check"] = {"tcp": True, "interval": check_interval}
    client = discovery.client if provider is None else provider._client
    lifecycle = Lifecycle(client, service_name, data, health.native, propagation)
    signals = HeldSignals(lifecycle.end_gracefully)
    if is_starlette(app):
        _wrap_lifespan(app, lifecycle, signals, health, health_check_path)
    else:
        if is_flask(app):
            add_flask_fallback(app, health, health_check_path or "/health")
        signals.install()
        lifecycle.start_when_serving()
    return ServiceRegistration(lifecycle, health)


def _wrap_lifespan(
    app: Any,
    lifecycle: Lifecycle,
    signals: HeldSignals,
    health: AppHealth,
    health_check_path: str | None,
) -> None:
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:
        async with inner(app) as state:
            health.loop = asyncio.get_running_loop()
            add_starlette_routes(app, health, health_check_path or "/health")
            # The server has already installed its own handlers.
            signals.install()
            lifecycle.start_when_serving()
            try:
                yield state
            finally:
                # If there was no signal, the server has already closed its port.
                await asyncio.to_thread(lifecycle.server_ended)

    app.router.lifespan_context = lifespan


def get_service_metadata(service_name: str | None = None) -> dict[str, str]:
    """The metadata of what this program has registered: of the service of this name, or of the only
    one. Empty if there is none."""
    instances = registrations.instances()
    if service_name is not None:
        instances = [instance for instance in instances if instance.service == service_name]
    if len(instances) > 1:
        names = ", ".join(sorted(instance.service for instance in instances))
        raise ValueError(f"several instances are registered; name one of: {names}")
    return _metadata(instances[0]) if instances else {}


def _metadata(instance: _waypost.Instance) -> dict[str, str]:
    version = {} if instance.version is None else {"version": instance.version}
    return {**instance.meta, **version}
