"""Functions that the extension module calls."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import sys
import urllib.error
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._waypost import Lease


def record_exception(lease: Lease, exception: BaseException) -> None:
    """Records the outcome of a request that raised an exception. Does nothing if the exception says
    nothing about the instance."""
    status, headers = _response_of(exception)
    if status is not None:
        lease.responded(status, headers.get("retry-after"))
    elif _is_failure(exception):
        lease.failed()


def _response_of(exception: BaseException) -> tuple[int | None, Any]:
    """The status and headers of an exception that was raised for a response, for example by
    ``raise_for_status``."""
    if isinstance(exception, urllib.error.HTTPError):
        return exception.code, exception.headers
    response: Any = getattr(exception, "response", None)
    status = getattr(response, "status_code", None)
    return (status, response.headers) if isinstance(status, int) else (None, {})


def _is_failure(exception: BaseException) -> bool:
    if isinstance(exception, (OSError, asyncio.TimeoutError, concurrent.futures.TimeoutError)):
        # Exceptions of `requests` are OSErrors, except that some are about the caller's arguments.
        return not isinstance(exception, ValueError)
    httpx = sys.modules.get("httpx")
    if httpx is None:
        return False
    return isinstance(exception, httpx.TransportError) and not isinstance(
        exception, (httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.LocalProtocolError)
    )


def run_check(
    function: Callable[[], Any],
    event_loop: Callable[[], asyncio.AbstractEventLoop | None],
    timeout: float,
) -> bool:
    """Calls a check function on a separate thread. Returning ``None`` counts as passing."""
    result = function()
    if inspect.isawaitable(result):
        result = _run_awaitable(result, event_loop(), timeout)
    return True if result is None else bool(result)


def _run_awaitable(
    awaitable: Awaitable[Any], event_loop: asyncio.AbstractEventLoop | None, timeout: float
) -> Any:
    async def run() -> Any:
        return await asyncio.wait_for(_as_coroutine(awaitable), timeout)

    if event_loop is None or not event_loop.is_running():
        return asyncio.run(run())
    return asyncio.run_coroutine_threadsafe(run(), event_loop).result()


async def _as_coroutine(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
