"""httpx transports whose URLs name services::

    import httpx
    from waypost.httpx import WaypostTransport

    with httpx.Client(transport=WaypostTransport()) as http:
        users = http.get("http://auth/users").json()

``AsyncWaypostTransport`` is for ``httpx.AsyncClient``. Each request goes to an instance that the load
balancer picks. Requests to URLs with a port, an IP address or ``localhost`` are sent unchanged.

A request that fails without a response is sent to up to two other instances, provided that it never
reached the first one or that its method is idempotent, and that its body can be sent again. A response of
up to 64 KiB whose length is known is read at once, so a truncated one counts as no response. Retries are
limited to a fifth of the requests. Instances that fail are ejected for a while. If there is no instance,
httpx raises its own :class:`httpx.ConnectError`, whose ``__cause__`` is one of :mod:`waypost.errors`.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from types import TracebackType

import httpx

from ._calls import ATTEMPTS, IDEMPOTENT, Caller, authority_of, names_a_service
from ._waypost import Lease
from .client import BaseClient
from .discovery import ServiceDiscovery
from .errors import WaypostError

#: The largest response that is read at once, in bytes.
SMALL = 64 * 1024

__all__ = ["AsyncWaypostTransport", "WaypostTransport"]


class WaypostTransport(httpx.BaseTransport):
    """Sends requests to instances of services.

    ``discovery`` is a :class:`~waypost.ServiceDiscoveryClient` or a provider; by default those of
    :mod:`waypost.discovery` are used. ``transport`` sends the requests, by default an
    :class:`httpx.HTTPTransport`.
    """

    def __init__(
        self,
        discovery: BaseClient | ServiceDiscovery | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._caller = Caller(discovery)
        self._transport = transport or httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if not names_a_service(request.url.host, request.url.port):
            return self._transport.handle_request(request)
        address = _address(request)
        self._caller.budget.deposit()
        tried: list[str] = []
        while True:
            try:
                lease, url = self._caller.client.lease_for(address, tried)
            except WaypostError as error:
                raise _no_instance(error, request) from error
            try:
                response = self._transport.handle_request(_request_to(request, url))
                if _is_small(response):
                    _read(response)
            except BaseException as error:
                if not _failed(lease, error):
                    raise
                tried.append(lease.id)
                if not _may_retry(request, error, tried) or not self._caller.budget.withdraw():
                    raise
                continue
            _responded(lease, response)
            if isinstance(response.stream, httpx.ByteStream):
                lease.close()
            else:
                assert isinstance(response.stream, httpx.SyncByteStream)
                response.stream = _LeasedStream(response.stream, lease)
            return response

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> WaypostTransport:
        self._transport.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._transport.__exit__(exc_type, exc_value, traceback)


class AsyncWaypostTransport(httpx.AsyncBaseTransport):
    """:class:`WaypostTransport` for :class:`httpx.AsyncClient` on asyncio."""

    def __init__(
        self,
        discovery: BaseClient | ServiceDiscovery | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._caller = Caller(discovery)
        self._transport = transport or httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not names_a_service(request.url.host, request.url.port):
            return await self._transport.handle_async_request(request)
        address = _address(request)
        self._caller.budget.deposit()
        tried: list[str] = []
        while True:
            try:
                lease, url = await self._lease_for(address, tried)
            except WaypostError as error:
                raise _no_instance(error, request) from error
            try:
                response = await self._transport.handle_async_request(_request_to(request, url))
                if _is_small(response):
                    await _read_async(response)
            except BaseException as error:
                if not _failed(lease, error):
                    raise
                tried.append(lease.id)
                if not _may_retry(request, error, tried) or not self._caller.budget.withdraw():
                    raise
                continue
            _responded(lease, response)
            if isinstance(response.stream, httpx.ByteStream):
                lease.close()
            else:
                assert isinstance(response.stream, httpx.AsyncByteStream)
                response.stream = _AsyncLeasedStream(response.stream, lease)
            return response

    async def _lease_for(self, address: str, tried: list[str]) -> tuple[Lease, str]:
        client = self._caller.client
        if not tried:
            at_once = client.try_lease_for(address)
            if at_once is not None:
                return at_once
        return await client.lease_for_async(address, tried)

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def __aenter__(self) -> AsyncWaypostTransport:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._transport.__aexit__(exc_type, exc_value, traceback)


def _address(request: httpx.Request) -> str:
    url = request.url
    return f"{url.scheme}://{url.host}{url.raw_path.decode('ascii')}"


def _request_to(request: httpx.Request, url: str) -> httpx.Request:
    """A copy for an instance: the original keeps its URL, which redirects are relative to."""
    headers = request.headers.copy()
    headers["host"] = authority_of(url)
    return httpx.Request(
        request.method,
        _parsed(url),
        headers=headers,
        stream=request.stream,
        extensions=request.extensions,
    )


#: Cached, because parsing takes httpx longer than everything else.
_parsed = functools.lru_cache(maxsize=4096)(httpx.URL)


def _failed(lease: Lease, error: BaseException) -> bool:
    """Records a failed attempt. Returns whether the instance caused it."""
    is_failure = isinstance(error, httpx.TransportError) and not isinstance(
        error, (httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.LocalProtocolError)
    )
    if is_failure:
        lease.failed()
    lease.close()
    return is_failure


def _may_retry(request: httpx.Request, error: BaseException, tried: list[str]) -> bool:
    if len(tried) == ATTEMPTS or not isinstance(request.stream, httpx.ByteStream):
        return False
    never_sent = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
    return never_sent or request.method.upper() in IDEMPOTENT


def _is_small(response: httpx.Response) -> bool:
    """Whether the body may be read at once: a stream has no length."""
    length = response.headers.get("content-length", "")
    return length.isascii() and length.isdigit() and int(length) <= SMALL


def _read(response: httpx.Response) -> None:
    stream = response.stream
    assert isinstance(stream, httpx.SyncByteStream)
    try:
        response.stream = httpx.ByteStream(b"".join(stream))
    finally:
        stream.close()


async def _read_async(response: httpx.Response) -> None:
    stream = response.stream
    assert isinstance(stream, httpx.AsyncByteStream)
    try:
        response.stream = httpx.ByteStream(b"".join([part async for part in stream]))
    finally:
        await stream.aclose()


def _responded(lease: Lease, response: httpx.Response) -> None:
    lease.responded(response.status_code, response.headers.get("retry-after"))


def _no_instance(error: WaypostError, request: httpx.Request) -> httpx.ConnectError:
    return httpx.ConnectError(str(error), request=request)


class _LeasedStream(httpx.SyncByteStream):
    """The body of a response, which is in flight until it is closed."""

    def __init__(self, stream: httpx.SyncByteStream, lease: Lease) -> None:
        self._stream = stream
        self._lease = lease

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream
        except httpx.TransportError:
            self._lease.failed()
            raise

    def close(self) -> None:
        self._lease.close()
        self._stream.close()


class _AsyncLeasedStream(httpx.AsyncByteStream):
    """The same for asyncio."""

    def __init__(self, stream: httpx.AsyncByteStream, lease: Lease) -> None:
        self._stream = stream
        self._lease = lease

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._stream:
                yield part
        except httpx.TransportError:
            self._lease.failed()
            raise

    async def aclose(self) -> None:
        self._lease.close()
        await self._stream.aclose()
