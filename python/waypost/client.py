"""The client: looks services up, picks instances, and registers the program."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from . import _waypost
from ._process import registrations, service_data
from ._waypost import Instance, Lease
from .discovery import ServiceDiscovery
from .discovery.consul import consul_variables
from .load_balancer import LoadBalancer, NamedStrategy, Strategy

__all__ = ["Instance", "Lease", "ServiceDiscoveryClient"]


class BaseClient:
    """The common base of the clients with and without asyncio."""

    def __init__(
        self,
        service_name: str | None = None,
        port: int = 0,
        auto_register: bool = True,
        registry_host: str | None = None,
        registry_port: int | None = None,
        load_balancer_strategy: str | Strategy | None = None,
        *,
        provider: ServiceDiscovery | None = None,
        service_data: Mapping[str, Any] | None = None,
    ) -> None:
        self.service_name = service_name
        self._client = _client_for(provider, registry_host, registry_port)
        self.load_balancer = LoadBalancer(self._client, _strategy(load_balancer_strategy))
        self._registrar: _waypost.Registrar | None = None
        if auto_register and service_name is not None and port != 0:
            self._register(service_name, {"port": port, **(service_data or {})})

    def _register(self, service_name: str, data: Mapping[str, Any]) -> None:
        prepared = json.dumps(service_data(data))
        self._registrar = self._client.register(service_name, prepared)
        if self._registrar is not None:
            registrations.add(self._registrar)

    @property
    def instance(self) -> Instance | None:
        """The instance that this client has registered, if any."""
        return None if self._registrar is None else self._registrar.instance

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._client.describe()}>"


class ServiceDiscoveryClient(BaseClient):
    """Looks services up by name and balances requests over their instances::

        client = ServiceDiscoveryClient()
        url = client.get_service_url("auth", "/users")

        with client.pick("auth") as endpoint:
            requests.get(endpoint.url_for("/users"), timeout=5)

    ``registry_host`` and ``registry_port`` name a Consul agent or Waypost's registry; without them, the
    environment chooses the provider. ``provider`` sets any other.

    A client with a ``service_name`` and a ``port`` registers this program until :meth:`close` or the
    end of the program, unless ``auto_register`` is false. ``service_data`` are further data, as
    :func:`waypost.discovery.register_service` takes them.

    ``load_balancer_strategy`` is a :class:`~waypost.load_balancer.Strategy` or the name of one; or
    ``"custom"``, if :attr:`load_balancer`'s strategy is set afterwards.

    The client may be used by many threads, and after a fork.
    """

    def discover_service(self, service_name: str) -> list[Instance]:
        """The instances of a service that take new requests, sorted by id."""
        return self._client.discover(service_name)

    def get_service_url(self, service_name: str, path: str = "") -> str:
        """The URL of a path on an instance that the load balancer picks. The first look-up of a service
        waits for the registry; later ones read memory."""
        return self._client.service_url(service_name, path)

    def get_services(self) -> dict[str, Instance]:
        """All services that have a usable instance, each with one that the load balancer picks."""
        return self._client.services()

    def pick(self, service_name: str, key: str | None = None) -> Lease:
        """An instance for one request, which counts as in flight until the lease is closed.

        Use it in a ``with`` statement. The request counts as succeeded if the statement's body ends
        without an exception. It counts as failed if the body raises an :class:`OSError`, a transport error
        of httpx, or what ``raise_for_status`` raises for a server error; other exceptions say nothing about
        the instance. To report the outcome yourself, call ``endpoint.succeeded()``, ``failed()``,
        ``rejected(retry_after)`` or ``responded(status)``. Instances that fail are ejected for a while.

        ``key`` is for :class:`~waypost.load_balancer.ConsistentHashStrategy`.
        """
        return self._client.pick(service_name, key)

    def wait_for(self, service_name: str, timeout: float = 30.0) -> None:
        """Waits until a service has an instance that takes requests. Raises the reason why there is
        none after ``timeout`` seconds."""
        self._client.wait_for(service_name, timeout)

    def explain(self, service_name: str) -> dict[str, Any]:
        """For each instance of a service, whether it is picked, and why."""
        explanation: dict[str, Any] = json.loads(self._client.explain(service_name))
        return explanation

    def close(self) -> None:
        """Deregisters what this client has registered. Look-ups still work."""
        if self._registrar is not None:
            registrar, self._registrar = self._registrar, None
            registrations.discard(registrar)
            registrar.deregister()

    def __enter__(self) -> ServiceDiscoveryClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _client_for(
    provider: ServiceDiscovery | None, host: str | None, port: int | None
) -> _waypost.Client:
    if provider is not None:
        if host is not None or port is not None:
            raise TypeError("give either a provider or registry_host and registry_port")
        return provider._client().another()
    if host is None and port is None:
        return _waypost.Client({})
    return _waypost.Client(consul_variables(host or "localhost", port, None))


def _strategy(choice: str | Strategy | None) -> Strategy | None:
    if choice is None or choice == "custom" or isinstance(choice, Strategy):
        return choice if isinstance(choice, Strategy) else None
    return NamedStrategy(choice)
