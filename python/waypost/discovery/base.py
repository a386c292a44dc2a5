"""The base class of providers."""

from __future__ import annotations

import asyncio
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping
from typing import Any

from .. import _waypost
from ..errors import Unsupported

#: The data of an instance: ``url``, or ``address`` and ``port``; and optionally ``id``,
#: ``scheme``, ``path``, ``version``, ``tags``, ``meta``, ``weight``, ``zone``, ``health``, ``ports``.
ServiceInfo = dict[str, Any]

_KEYS = (
    "url address port scheme path id version tags metadata weight zone health ports".split()
)


class ServiceDiscovery(ABC):
    """A source of services. Write a subclass to add one of your own::

        class HostsFile(ServiceDiscovery):
            def get_service(self, service_name, default=None):
                address = self.read().get(service_name)
                return {"address": address, "port": 80} if address else default

            def get_services(self):
                return {name: {"address": a, "port": 80} for name, a in self.read().items()}

        set_discovery_provider(HostsFile())

    Return what exists, and raise an exception if that can't be determined. Waypost makes one call for
    all callers, repeats it every :attr:`refresh_interval` seconds, keeps the last good answer while your
    provider fails, and balances over the instances. Methods are called on threads, of which up to
    four run at the same time, so they may block; they may also be ``async``.

    A provider with several instances of a service overrides :meth:`get_instances`. A provider that
    services can be registered with overrides :meth:`register_service` and :meth:`deregister_service`.
    """

    #: The time between two calls, in seconds.
    refresh_interval: float = 5.0

    def get_service_url(self, service_name: str, default: Any = None) -> Any:
        """The URL of an instance of a service."""
        service = self.get_service(service_name)
        return _url_of(service) if service else default

    @abstractmethod
    def get_service(self, service_name: str, default: Any = None) -> Any:
        """One instance of a service, or the default if the service is unknown."""

    @abstractmethod
    def get_services(self) -> Any:
        """All services by name, each with one instance."""

    def register_service(self, service_name: str, service_data: Any) -> Any:
        """Registers an instance of this program's service."""
        raise Unsupported(f"{self.describe()}: services can't be registered with this provider")

    def deregister_service(self, service_name: str) -> Any:
        """Removes what :meth:`register_service` has registered."""
        raise Unsupported(f"{self.describe()}: services can't be registered with this provider")

    def get_instances(self, service_name: str) -> Any:
        """All instances of a service, or ``None`` if the service is unknown. By default, the one that
        :meth:`get_service` returns."""
        service = _resolved(self.get_service(service_name))
        return None if service is None else [service]

    def describe(self) -> str:
        """The kind of provider and its address, for errors and logs. Must not contain secrets."""
        return type(self).__name__

    # Called by the extension module.

    def _answer(self, service_name: str) -> str | None:
        instances = _resolved(self.get_instances(service_name))
        if instances is None:
            return None
        return json.dumps({service_name: [_entry(instance) for instance in instances]})

    def _names(self) -> list[str]:
        return list(_resolved(self.get_services()))

    def _register(self, service_name: str, data: str) -> bool:
        self.__dict__.setdefault("_registered", {})[json.loads(data)["id"]] = service_name
        _resolved(self.register_service(service_name, json.loads(data)))
        return True

    def _deregister(self, instance_id: str) -> bool:
        service_name = self.__dict__.get("_registered", {}).pop(instance_id, None)
        if service_name is not None:
            _resolved(self.deregister_service(service_name))
        return True

    def _registers(self) -> bool:
        return type(self).register_service is not ServiceDiscovery.register_service

    def _client(self) -> _waypost.Client:
        """The client that looks services up with this provider."""
        client: _waypost.Client | None = self.__dict__.get("_waypost_client")
        if client is None:
            client = _waypost.Client({}, self)
            self.__dict__["_waypost_client"] = client
        return client


def _entry(instance: Any) -> Any:
    """An instance in the format of the static configuration file."""
    if isinstance(instance, str):
        return instance
    if isinstance(instance, _waypost.Instance):
        instance = instance.to_dict()
    entry = dict(instance)
    if "meta" in entry:
        entry["metadata"] = entry.pop("meta")
    unknown = set(entry) - set(_KEYS) - {"service", "name"}
    if unknown:
        names = ", ".join(sorted(map(str, unknown)))
        raise ValueError(f"unknown key of an instance: {names}; use {', '.join(_KEYS)}")
    return {key: entry[key] for key in _KEYS if entry.get(key) is not None}


def _url_of(service: Mapping[str, Any]) -> str:
    if service.get("url"):
        return str(service["url"])
    return f"{service.get('scheme', 'http')}://{service['address']}:{service['port']}"


def _resolved(result: Any) -> Any:
    """The result of a method, which may be async."""
    if inspect.isawaitable(result):
        return asyncio.run(_await(result))
    return result


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
