"""Functions that look services up and register this program, with a shared provider::

    from waypost.discovery import get_service_url

    auth_url = get_service_url("auth")

The environment chooses the provider on first use; :func:`set_discovery_provider` sets another. The
functions for asyncio are in :mod:`waypost.aio`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any

from .. import _waypost
from .._process import registrations
from ..errors import ConfigError, WaypostError
from ._client import ClientServiceDiscovery, default_service, default_url, register
from .base import ServiceDiscovery, ServiceInfo
from .consul import ConsulServiceDiscovery
from .env import EnvServiceDiscovery
from .kubernetes import KubernetesServiceDiscovery
from .static import StaticServiceDiscovery

__all__ = [
    "ConsulServiceDiscovery",
    "EnvServiceDiscovery",
    "KubernetesServiceDiscovery",
    "ServiceDiscovery",
    "ServiceInfo",
    "StaticServiceDiscovery",
    "deregister_all_services",
    "deregister_service",
    "get_discovery_provider",
    "get_service",
    "get_service_url",
    "get_services",
    "register_discovery_provider",
    "register_service",
    "set_discovery_provider",
]

#: Packages announce providers as entry points of this group: name = "package.module:Class".
ENTRY_POINTS = "waypost.providers"

_lock = threading.Lock()
_provider: ServiceDiscovery | None = None
_current: _waypost.Client | None = None

_factories: dict[str, Callable[[], ServiceDiscovery]] = {
    "env": EnvServiceDiscovery,
    "static": StaticServiceDiscovery,
    "consul": ConsulServiceDiscovery,
    "kubernetes": KubernetesServiceDiscovery,
}


def get_service_url(service_name: str, default: str | None = None) -> str:
    """The URL of an instance of a service, picked by the load balancer.

    The first look-up of a service waits for the registry; later ones read memory, which a watch keeps
    up to date. While the registry is down, the last good answer is used.

    Returns the default, if one is given, when there is no usable instance or the registry fails.

    Raises an exception of :mod:`waypost.errors` otherwise.
    """
    try:
        return (_current or client()).service_url(service_name, "")
    except WaypostError as error:
        return default_url(error, default)


def get_service(service_name: str, default: str | Mapping[str, Any] | None = None) -> ServiceInfo:
    """Like :func:`get_service_url`, but returns all known data of the instance: a dict with ``url``,
    ``address``, ``port``, ``tags``, ``meta``, ``version``, ``health`` and more. The default may be a URL
    or such a dict."""
    try:
        return client().instance(service_name).to_dict()
    except WaypostError as error:
        return default_service(error, service_name, default)


def get_services() -> dict[str, ServiceInfo]:
    """All services that have a usable instance, each with one as :func:`get_service` returns it."""
    return {name: instance.to_dict() for name, instance in client().services().items()}


def register_service(service_name: str, service_data: Mapping[str, Any]) -> str:
    """Registers an instance and keeps it registered until :func:`deregister_service` or the end of the
    program. Returns its id. Registering the same id again replaces the earlier registration.

    ``service_data`` has ``port``, and optionally ``address``, ``id``, ``version``, ``tags``, ``meta``,
    ``scheme``, ``path``, ``weight``, ``zone``, ``ports`` (by name), and ``check`` (or a list of
    ``checks``) with the keys of Consul's check definitions, such as ``{"http": "/health", "interval":
    "10s"}``, where a path is one of the instance.

    An unreachable registry is not an error: registration is retried. If nothing can be registered with
    the provider, that is logged and this function succeeds.

    A signal such as SIGTERM that ends the program at once leaves deregistration to the registry's
    checks; :func:`waypost.registration.register_service` handles it.
    """
    return register(client(), service_name, service_data)


def deregister_service(service_name: str) -> bool:
    """Deregisters what this program has registered under this name, and waits until the registry has
    confirmed it. Returns whether there was anything."""
    return registrations.deregister(service_name) > 0


def deregister_all_services() -> int:
    """Deregisters everything that this program has registered, as the end of the program does. Returns
    the number of instances."""
    return registrations.deregister_all()


def set_discovery_provider(provider: ServiceDiscovery) -> None:
    """Uses this provider from now on. What is registered stays with the provider it was registered
    with."""
    global _provider, _current
    if not isinstance(provider, ServiceDiscovery):
        raise TypeError(
            f"{provider!r} is not a provider; use a class that inherits from ServiceDiscovery"
        )
    new = provider._client()
    with _lock:
        _provider, _current = provider, new


def get_discovery_provider(provider_type: str | None = None) -> ServiceDiscovery:
    """The provider that these functions use. With a type (``env``, ``static``, ``consul``,
    ``kubernetes``, or one of :func:`register_discovery_provider`), a new provider of that type."""
    if provider_type is not None:
        return _factory(provider_type)()
    client()
    assert _provider is not None
    return _provider


def register_discovery_provider(
    provider_type: str, factory: Callable[[], ServiceDiscovery]
) -> None:
    """Gives a provider of your own a name, for :func:`get_discovery_provider` and
    ``SERVICE_DISCOVERY_PROVIDER``. A package can do the same with an entry point of the group
    ``waypost.providers``."""
    _factories[provider_type] = factory


def client() -> _waypost.Client:
    """The client that these functions share."""
    global _provider, _current
    with _lock:
        if _current is None:
            _provider = _of_environment()
            _current = _provider._client()
        return _current


def _of_environment() -> ServiceDiscovery:
    name = os.environ.get("SERVICE_DISCOVERY_PROVIDER", "").strip()
    if name and name not in ("env", "static", "consul", "kubernetes"):
        return _factory(name)()
    return ClientServiceDiscovery(_waypost.Client({}))


def _factory(name: str) -> Callable[[], ServiceDiscovery]:
    if name in _factories:
        return _factories[name]
    announced = entry_points(group=ENTRY_POINTS)
    for entry_point in announced:
        if entry_point.name == name:
            factory: Callable[[], ServiceDiscovery] = entry_point.load()
            return factory
    known = sorted({*_factories, *(entry_point.name for entry_point in announced)})
    raise ConfigError(
        f"SERVICE_DISCOVERY_PROVIDER: unknown provider {name!r}; use one of: {', '.join(known)}"
    )


def _after_fork() -> None:
    global _lock
    # A thread of the parent process may have held it during the fork.
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
