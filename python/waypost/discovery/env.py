"""Services in environment variables."""

from __future__ import annotations

from .. import _waypost
from ._client import ClientServiceDiscovery


class EnvServiceDiscovery(ClientServiceDiscovery):
    """Reads ``SERVICE_<NAME>_URL``, or ``SERVICE_<NAME>_HOST`` and ``SERVICE_<NAME>_PORT``."""

    def __init__(self) -> None:
        super().__init__(_waypost.Client({"SERVICE_DISCOVERY_PROVIDER": "env"}))
