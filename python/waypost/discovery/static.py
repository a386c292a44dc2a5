"""Services in a file."""

from __future__ import annotations

from os import PathLike, fspath

from .. import _waypost
from ._client import ClientServiceDiscovery


class StaticServiceDiscovery(ClientServiceDiscovery):
    """Reads a JSON or YAML file, and reads it again when it has changed. Without a path, the file that
    ``SERVICE_DISCOVERY_CONFIG_FILE`` names."""

    def __init__(self, config_file: str | PathLike[str] | None = None) -> None:
        variables = {"SERVICE_DISCOVERY_PROVIDER": "static"}
        if config_file is not None:
            variables["SERVICE_DISCOVERY_CONFIG_FILE"] = fspath(config_file)
        super().__init__(_waypost.Client(variables))
