"""Shared by the HTTP clients: which URLs name services, and which failures may be retried."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from . import _waypost, discovery
from .client import BaseClient
from .discovery import ServiceDiscovery

#: The methods whose requests may be sent twice (RFC 9110, section 9.2.2).
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})

ATTEMPTS = _waypost.ATTEMPTS


class Caller:
    """Picks instances for the requests of an HTTP client, and limits its retries."""

    def __init__(self, source: BaseClient | ServiceDiscovery | None) -> None:
        self._source = source
        self.budget = _waypost.RetryBudget()

    @property
    def client(self) -> _waypost.Client:
        if self._source is None:
            return discovery.client()
        if isinstance(self._source, ServiceDiscovery):
            return self._source._client()
        return self._source._client


def names_a_service(host: str, port: int | None) -> bool:
    """Whether a URL's host is the name of a service. A URL with a port, an IP address or ``localhost``
    refers to one server instead."""
    if port is not None or host in ("", "localhost"):
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


def authority_of(url: str) -> str:
    """The ``Host`` header for an instance's URL."""
    return urlsplit(url).netloc
