"""Functions that the extension module calls."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import sys
from collections.abc import Awaitable, Callable
from typing import Any


def is_failure(exception: BaseException) -> bool:
    """Whether an exception means that a request failed at the instance that it was sent to."""
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
    """Calls a check function on a thread of its own. Returning ``None`` counts as passing."""
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
