"""The health checks of an application, and its endpoints for them."""

from __future__ import annotations

import asyncio
import functools
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from . import _waypost

#: The default time limit of a check, in seconds: shorter than that of a Kubernetes probe, 1 s.
DEFAULT_TIMEOUT = 0.9

#: The response of /livez. It runs no check, so that a failing dependency doesn't cause a restart.
LIVE = '{"status":"passing"}'

HEADERS = {"cache-control": "no-store"}


class AppHealth:
    """The checks of one application."""

    def __init__(self, service_name: str) -> None:
        self.native = _waypost.HealthChecks(service_name)
        #: The loop that the application runs in; async checks are awaited there.
        self.loop: asyncio.AbstractEventLoop | None = None

    def add(self, name: str, function: Callable[[], Any], timeout: float, critical: bool) -> None:
        self.native.add(name, function, lambda: self.loop, timeout, critical)

    async def report_async(self) -> tuple[int, str]:
        """The status and body of the response."""
        self.loop = asyncio.get_running_loop()
        serving, report = await self.native.report_async()
        return (200 if serving else 503), report

    def report(self) -> tuple[int, str]:
        serving, report = self.native.report()
        return (200 if serving else 503), report


_of_apps: weakref.WeakKeyDictionary[Any, AppHealth] = weakref.WeakKeyDictionary()


def health_of(app: Any, service_name: str) -> AppHealth:
    """The checks of an application, which its registration and its endpoints share."""
    if app is None:
        return AppHealth(service_name)
    if not (is_starlette(app) or is_flask(app)):
        raise TypeError(
            f"{type(app).__name__} is not known; pass a FastAPI, Starlette or Flask application"
        )
    return _of_apps.setdefault(app, AppHealth(service_name))


def is_starlette(app: Any) -> bool:
    """Whether it is a Starlette or FastAPI application."""
    return hasattr(getattr(app, "router", None), "lifespan_context")


def is_flask(app: Any) -> bool:
    """Whether it is a Flask application."""
    return hasattr(app, "wsgi_app") and hasattr(app, "add_url_rule")


def add_starlette_routes(app: Any, health: AppHealth, path: str) -> None:
    """Adds the endpoints that the application has no routes for."""
    from starlette.responses import Response
    from starlette.routing import Route

    def respond(status: int, body: str) -> Response:
        return Response(body, status, HEADERS, media_type="application/json")

    async def report(request: Any) -> Response:
        return respond(*await health.report_async())

    async def live(request: Any) -> Response:
        return respond(200, LIVE)

    known = {getattr(route, "path", None) for route in app.router.routes}
    for route_path, endpoint in {path: report, "/readyz": report, "/livez": live}.items():
        if route_path not in known:
            # Inserted before any route that matches every path.
            route = Route(route_path, endpoint, methods=["GET"], include_in_schema=False)
            app.router.routes.insert(0, route)


def add_flask_routes(app: Any, health: AppHealth, path: str) -> None:
    """Adds the endpoints that the application has no rules for."""

    def respond(status: int, body: str) -> Any:
        return app.response_class(body, status, HEADERS, mimetype="application/json")

    known = {rule.rule for rule in app.url_map.iter_rules()}
    views: Mapping[str, Callable[[], Any]] = {
        path: lambda: respond(*health.report()),
        "/readyz": lambda: respond(*health.report()),
        "/livez": lambda: respond(200, LIVE),
    }
    for rule, view in views.items():
        if rule not in known:
            app.add_url_rule(rule, f"waypost{rule}".replace(".", "_"), view)


def add_flask_fallback(app: Any, health: AppHealth, path: str) -> None:
    """Responds to the endpoints for which the application still has no rules when it gets a request."""
    inner = app.wsgi_app
    views: Mapping[str, Callable[[], tuple[int, str]]] = {
        path: health.report,
        "/readyz": health.report,
        "/livez": lambda: (200, LIVE),
    }

    @functools.wraps(inner)
    def wsgi_app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        wanted = environ.get("PATH_INFO", "")
        view = views.get(wanted)
        if view is None or any(rule.rule == wanted for rule in app.url_map.iter_rules()):
            return inner(environ, start_response)
        response = app.response_class(*reversed(view()), HEADERS, mimetype="application/json")
        return response(environ, start_response)

    app.wsgi_app = wsgi_app


def check_name(function: Callable[[], Any]) -> str:
    """``database`` for a function ``check_database``."""
    name = getattr(function, "__name__", type(function).__name__)
    return name.removeprefix("check_") or name
