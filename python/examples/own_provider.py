"""A provider of your own, which reads /etc/hosts:  python own_provider.py [NAME]

Waypost caches its answers, balances over them, and keeps the last one while the file can't be read.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from waypost.discovery import ServiceDiscovery, get_service_url, set_discovery_provider


class HostsFile(ServiceDiscovery):
    """Each host name in the file is a service on port 80."""

    refresh_interval = 10.0

    def __init__(self, path: Path = Path("/etc/hosts")) -> None:
        self.path = path

    def get_instances(self, service_name: str) -> list[dict[str, Any]] | None:
        return self._read().get(service_name)

    def get_service(self, service_name: str, default: Any = None) -> Any:
        instances = self.get_instances(service_name)
        return instances[0] if instances else default

    def get_services(self) -> dict[str, Any]:
        return {name: instances[0] for name, instances in self._read().items()}

    def describe(self) -> str:
        return str(self.path)

    def _read(self) -> dict[str, list[dict[str, Any]]]:
        services: dict[str, list[dict[str, Any]]] = {}
        for line in self.path.read_text().splitlines():
            address, *names = line.partition("#")[0].split() or [""]
            for name in names:
                services.setdefault(name, []).append({"address": address, "port": 80})
        return services


if __name__ == "__main__":
    set_discovery_provider(HostsFile())
    print(get_service_url(sys.argv[1] if len(sys.argv) > 1 else "localhost"))
