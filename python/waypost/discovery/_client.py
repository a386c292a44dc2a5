"""A provider whose look-ups go through a client of the extension module."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .. import _waypost
from .._process import registrations, service_data
from ..errors import ConfigError, InvalidArgument, WaypostError
from .base import ServiceDiscovery, ServiceInfo


class ClientServiceDiscovery(ServiceDiscovery):
    """Looks services up with a client, which caches answers and balances over instances."""

    def __init__(self, client: _waypost.Client) -> None:
        self._native = client

    def get_service_url(self, service_name: str, default: str | None = None) -> str:
        """The URL of an instance that the load balancer picks; the default, if one is given and there
        is no usable instance or the registry fails."""
        try:
            return self._native.service_url(service_name, "")
        except WaypostError as error:
            return default_url(error, default)

    def get_service(
        self, service_name: str, default: str | Mapping[str, Any] | None = None
    ) -> ServiceInfo:
        """An instance that the load balancer picks, as a dict. The default may be such a dict or a
        URL."""
        try:
            return self._native.instance(service_name).to_dict()
        except WaypostError as error:
            return default_service(error, service_name, default)

    def get_services(self) -> dict[str, ServiceInfo]:
        """All services that have a usable instance, each with one that the load balancer picks."""
        services = self._native.services()
        return {name: instance.to_dict() for name, instance in services.items()}

    def get_instances(self, service_name: str) -> list[ServiceInfo]:
        """All instances of a service that take requests."""
        return [instance.to_dict() for instance in self._native.discover(service_name)]

    def register_service(self, service_name: str, service_data: Mapping[str, Any]) -> str:
        """Registers an instance and keeps it registered until :meth:`deregister_service` or the end of
        the program. Returns its id."""
        return register(self._native, service_name, service_data)

    def deregister_service(self, service_name: str) -> bool:
        """Deregisters what this program has registered under this name. Returns whether there was
        anything."""
        return registrations.deregister(service_name) > 0

    def describe(self) -> str:
        """The kind of provider, and its address."""
        return self._native.describe()

    def _client(self) -> _waypost.Client:
        return self._native


def register(client: _waypost.Client, service_name: str, data: Mapping[str, Any]) -> str:
    """Registers an instance until the end of the program. Returns its id."""
    prepared = service_data(data)
    registrar = client.register(service_name, json.dumps(prepared))
    if registrar is None:
        # Logged with the reason: in a pod, for example, Kubernetes does the registration.
        return str(prepared.get("id", service_name))
    return registrations.add(registrar)


def default_url(error: WaypostError, default: str | None) -> str:
    """Returns the default. Raises the error if there is none, or if the caller caused the error."""
    if default is None or isinstance(error, (InvalidArgument, ConfigError)):
        raise error
    return default


def default_service(
    error: WaypostError, service_name: str, default: str | Mapping[str, Any] | None
) -> ServiceInfo:
    """The same for a service's dict. A URL is converted to a dict."""
    if default is None or isinstance(error, (InvalidArgument, ConfigError)):
        raise error
    if isinstance(default, str):
        return _waypost.fallback_instance(service_name, default).to_dict()
    return dict(default)
