"""Health endpoints of FastAPI, Starlette and Flask applications."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ._health import (
    DEFAULT_TIMEOUT,
    add_flask_routes,
    add_starlette_routes,
    check_name,
    health_of,
    is_starlette,
)

__all__ = ["HealthCheck", "register_health_check_endpoint"]


@dataclass(frozen=True)
class HealthCheck:
    """A check function with options, where the function alone isn't enough."""

    #: Returns whether the check passes (``None`` counts as passing), or raises what is wrong. It may be
    #: async.
    function: Callable[[], Any]
    #: By default the function's name without ``check_``.
    name: str | None = None
    #: The time limit in seconds, after which the check fails.
    timeout: float = DEFAULT_TIMEOUT
    #: Whether a failure is only a warning, so that the service keeps serving.
    advisory: bool = False


CheckFunctions = Iterable[Callable[[], Any] | HealthCheck] | Mapping[str, Callable[[], Any]]


def register_health_check_endpoint(
    app: Any,
    service_name: str,
    check_functions: CheckFunctions = (),
    *,
    path: str = "/health",
    timeout: float = DEFAULT_TIMEOUT,
) -> None:
    """Adds the endpoints that report whether the service works:

    ``/health`` and ``/readyz``
        run the checks at the same time, each for at most ``timeout`` seconds, and respond with the
        report in JSON; 200, or 503 if a check fails or the service is shutting down.
    ``/livez``
        always responds with 200.

    ``check_functions`` are functions that return whether they pass or raise what is wrong; sync ones run
    on threads, async ones in the application's event loop. Also :class:`HealthCheck`, or a dict of
    functions by name.
    """
    health = health_of(app, service_name)
    if isinstance(check_functions, Mapping):
        checks = [
            HealthCheck(function, name, timeout) for name, function in check_functions.items()
        ]
    else:
        checks = [
            check if isinstance(check, HealthCheck) else HealthCheck(check, timeout=timeout)
            for check in check_functions
        ]
    for check in checks:
        if not callable(check.function):
            raise TypeError(f"{check.function!r} is not a function; a check is called without arguments")
        name = check.name or check_name(check.function)
        health.add(name, check.function, check.timeout, not check.advisory)
    if is_starlette(app):
        add_starlette_routes(app, health, path)
    else:
        add_flask_routes(app, health, path)
