"""Service discovery for microservices: look up, call and register services, with the same code on a
laptop and in a cluster.

==============================  ==========================================================
module                          contents
==============================  ==========================================================
:mod:`waypost.discovery`        functions to look services up and to register; providers
:mod:`waypost.client`           ``ServiceDiscoveryClient``, and leases on instances
:mod:`waypost.load_balancer`    the strategies
:mod:`waypost.aio`              the same for asyncio
:mod:`waypost.registration`     registers a FastAPI, Starlette, Flask or plain program
:mod:`waypost.helpers`          health endpoints
:mod:`waypost.httpx`            transports whose URLs name services
:mod:`waypost.requests`         the same for ``requests``
:mod:`waypost.errors`           the exceptions
==============================  ==========================================================

Log lines go to the logger ``waypost``.
"""

from ._waypost import Instance, Lease
from .client import ServiceDiscoveryClient
from .discovery import (
    deregister_service,
    get_service,
    get_service_url,
    get_services,
    register_service,
    set_discovery_provider,
)
from .errors import (
    ConfigError,
    InvalidArgument,
    NoInstances,
    NoneHealthy,
    NotAuthorised,
    NoUsableInstance,
    RegistryUnreachable,
    Rejected,
    Stale,
    TimedOut,
    UnknownService,
    Unsupported,
    WaypostError,
)

__all__ = [
    "ConfigError",
    "Instance",
    "InvalidArgument",
    "Lease",
    "NoInstances",
    "NoUsableInstance",
    "NoneHealthy",
    "NotAuthorised",
    "RegistryUnreachable",
    "Rejected",
    "ServiceDiscoveryClient",
    "Stale",
    "TimedOut",
    "UnknownService",
    "Unsupported",
    "WaypostError",
    "deregister_service",
    "get_service",
    "get_service_url",
    "get_services",
    "register_service",
    "set_discovery_provider",
]
