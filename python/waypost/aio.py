"""The functions of :mod:`waypost.discovery` and the client for asyncio::

    from waypost import aio

    auth_url = await aio.get_service_url("auth")

They share the provider, the cache and the registrations with those functions. A call that needn't wait
returns from memory at once; otherwise the event loop waits for the library, without a thread per call.
Cancelling a call cancels its work.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from . import discovery
from ._process import registrations
from ._waypost import Instance, Lease
from .client import BaseClient
from .discovery import ServiceInfo
from .discovery._client import default_service, default_url
from .errors import WaypostError

__all__ = [
    "ServiceDiscoveryClient",
    "deregister_service",
    "get_service",
    "get_service_url",
    "get_services",
    "register_service",
]


async def get_service_url(service_name: str, default: str | None = None) -> str:
    """Like :func:`waypost.discovery.get_service_url`."""
    client = discovery.client()
    try:
        url = client.try_service_url(service_name, "")
        return await client.service_url_async(service_name, "") if url is None else url
    except WaypostError as error:
        return default_url(error, default)


async def get_service(
    service_name: str, default: str | Mapping[str, Any] | None = None
) -> ServiceInfo:
    """Like :func:`waypost.discovery.get_service`."""
    try:
        return (await discovery.client().instance_async(service_name)).to_dict()
    except WaypostError as error:
        return default_service(error, service_name, default)


async def get_services() -> dict[str, ServiceInfo]:
    """Like :func:`waypost.discovery.get_services`."""
    services = await discovery.client().services_async()
    return {name: instance.to_dict() for name, instance in services.items()}


async def register_service(
    service_name: str, service_data: Mapping[str, Any], wait: float | None = None
) -> str:
    """Like :func:`waypost.discovery.register_service`; waits for up to ``wait`` seconds until it is
    registered."""
    instance_id = discovery.register_service(service_name, service_data)
    registrar = registrations.get(instance_id)
    if wait is not None and registrar is not None:
        await registrar.wait_async(wait)
    return instance_id


async def deregister_service(service_name: str) -> bool:
    """Like :func:`waypost.discovery.deregister_service`."""
    removed = registrations.remove(service_name)
    await asyncio.gather(*(registrar.deregister_async() for registrar in removed))
    return bool(removed)


class ServiceDiscoveryClient(BaseClient):
    """:class:`waypost.client.ServiceDiscoveryClient` for asyncio::

        with await client.pick("auth") as endpoint:
            await http.get(endpoint.url_for("/users"))
    """

    async def discover_service(self, service_name: str) -> list[Instance]:
        """The instances of a service that take new requests, sorted by id."""
        return await self._client.discover_async(service_name)

    async def get_service_url(self, service_name: str, path: str = "") -> str:
        """The URL of a path on an instance that the load balancer picks."""
        url = self._client.try_service_url(service_name, path)
        return await self._client.service_url_async(service_name, path) if url is None else url

    async def get_services(self) -> dict[str, Instance]:
        """All services that have a usable instance, each with one that the load balancer picks."""
        return await self._client.services_async()

    async def pick(self, service_name: str, key: str | None = None) -> Lease:
        """An instance for one request; see :meth:`waypost.client.ServiceDiscoveryClient.pick`. The
        lease is for a ``with`` statement."""
        return await self._client.pick_async(service_name, key)

    async def wait_for(self, service_name: str, timeout: float = 30.0) -> None:
        """Waits until a service has an instance that takes requests."""
        await self._client.wait_for_async(service_name, timeout)

    async def explain(self, service_name: str) -> dict[str, Any]:
        """For each instance of a service, whether it is picked, and why."""
        explanation: dict[str, Any] = json.loads(await self._client.explain_async(service_name))
        return explanation

    async def close(self) -> None:
        """Deregisters what this client has registered. Look-ups still work."""
        if self._registrar is not None:
            registrar, self._registrar = self._registrar, None
            registrations.discard(registrar)
            await registrar.deregister_async()

    async def __aenter__(self) -> ServiceDiscoveryClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
