"""An adapter for ``requests`` whose URLs name services::

    import requests
    from waypost.requests import WaypostAdapter

    session = requests.Session()
    session.mount("http://", WaypostAdapter())
    users = session.get("http://auth/users", timeout=5).json()

Each request goes to an instance that the load balancer picks. URLs with a port, an IP address or
``localhost`` are left alone. Retries and outcomes are those of :mod:`waypost.httpx`. If there is no
instance, ``requests`` raises its own :class:`requests.exceptions.ConnectionError`, whose ``__cause__`` is
one of :mod:`waypost.errors`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import (
    ChunkedEncodingError,
    ConnectionError,
    ConnectTimeout,
    ReadTimeout,
    SSLError,
)
from urllib3.exceptions import MaxRetryError, NewConnectionError

from ._calls import ATTEMPTS, IDEMPOTENT, Caller, names_a_service
from ._waypost import Lease
from .client import BaseClient
from .discovery import ServiceDiscovery
from .errors import WaypostError

__all__ = ["WaypostAdapter"]


class WaypostAdapter(HTTPAdapter):
    """Sends requests to instances of services.

    ``discovery`` is a :class:`~waypost.ServiceDiscoveryClient` or a provider; by default those of
    :mod:`waypost.discovery` are used. Other arguments are those of ``HTTPAdapter``.
    """

    def __init__(
        self, discovery: BaseClient | ServiceDiscovery | None = None, **adapter: Any
    ) -> None:
        self._caller = Caller(discovery)
        super().__init__(**adapter)

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: None | float | tuple[float, float] | tuple[float, None] = None,
        verify: bool | str = True,
        cert: None | bytes | str | tuple[bytes | str, bytes | str] = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Sends a request to an instance, and retries at another one if that is allowed."""
        parts = urlsplit(request.url or "")
        if not names_a_service(parts.hostname or "", parts.port):
            return super().send(request, stream, timeout, verify, cert, proxies)
        self._caller.budget.deposit()
        tried: list[str] = []
        while True:
            try:
                lease, url = self._caller.client.lease_for(request.url or "", tried)
            except WaypostError as error:
                raise ConnectionError(error, request=request) from error
            attempt = request.copy()
            attempt.url = url
            try:
                # Instances are reached directly, also if the environment names a proxy.
                response = super().send(attempt, True, timeout, verify, cert, {})
                if not stream:
                    # Here rather than by the session, so that a response which is cut short may be
                    # retried.
                    _ = response.content
            except BaseException as error:
                if not _failed(lease, error):
                    raise
                tried.append(lease.id)
                if not _may_retry(request, error, tried) or not self._caller.budget.withdraw():
                    raise
                continue
            lease.responded(response.status_code, response.headers.get("retry-after"))
            # Redirects are relative to the original request, which has the service's name.
            response.request = request
            response.url = request.url or ""
            if stream:
                _hold(response, lease)
            else:
                lease.close()
            return response


def _failed(lease: Lease, error: BaseException) -> bool:
    """Records a failed attempt. Returns whether the instance caused it."""
    is_failure = isinstance(error, (ConnectionError, ReadTimeout, ChunkedEncodingError))
    if is_failure:
        lease.failed()
    lease.close()
    return is_failure


def _may_retry(request: requests.PreparedRequest, error: BaseException, tried: list[str]) -> bool:
    if len(tried) == ATTEMPTS or not isinstance(request.body, (bytes, str, type(None))):
        return False
    return _was_never_sent(error) or (request.method or "").upper() in IDEMPOTENT


def _was_never_sent(error: BaseException) -> bool:
    if isinstance(error, (ConnectTimeout, SSLError)):
        return True
    reason = error.args[0] if error.args else None
    if isinstance(reason, MaxRetryError):
        reason = reason.reason
    return isinstance(reason, NewConnectionError)


def _hold(response: requests.Response, lease: Lease) -> None:
    """Keeps the request in flight until the response has been read or is closed."""
    raw: Any = response.raw
    for name in ("close", "release_conn"):
        setattr(raw, name, _then_close(getattr(raw, name), lease))


def _then_close(method: Callable[[], None], lease: Lease) -> Callable[[], None]:
    def call() -> None:
        lease.close()
        method()

    return call
