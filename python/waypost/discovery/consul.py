"""Services in Consul, or in Waypost's own registry."""

from __future__ import annotations

from .. import _waypost
from ._client import ClientServiceDiscovery


class ConsulServiceDiscovery(ClientServiceDiscovery):
    """Looks services up with a Consul agent and registers with it. Parameters that aren't given come from
    the environment: ``CONSUL_HOST``, ``CONSUL_PORT``, ``CONSUL_TOKEN``, and so on."""

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        token: str | None = None,
    ) -> None:
        super().__init__(_waypost.Client(consul_variables(host, port, token)))


def consul_variables(host: str | None, port: int | None, token: str | None) -> dict[str, str]:
    """The settings of the provider for an agent."""
    variables = {"SERVICE_DISCOVERY_PROVIDER": "consul"}
    if host is not None:
        # Otherwise its port and scheme would be used with this host.
        variables["CONSUL_HTTP_ADDR"] = ""
        variables["CONSUL_HOST"] = host
        variables["CONSUL_PORT"] = "8500"
    if port is not None:
        variables["CONSUL_PORT"] = str(port)
    if token is not None:
        variables["CONSUL_TOKEN"] = token
    return variables
