"""Look a service up, list all services, and call one:  python look_up.py [NAME]"""

from __future__ import annotations

import sys
import urllib.request

from waypost import ServiceDiscoveryClient, WaypostError
from waypost.discovery import get_service_url, get_services


def main(name: str) -> None:
    try:
        print(f"{name} is at {get_service_url(name)}")
    except WaypostError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    for service, instance in get_services().items():
        print(f"{service:12} {instance['url']:30} {instance['health']}")

    client = ServiceDiscoveryClient(load_balancer_strategy="least_connections")
    with client.pick(name) as endpoint:
        with urllib.request.urlopen(endpoint.url_for("/health"), timeout=5) as response:
            endpoint.responded(response.status)
            print(response.status, endpoint.id)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "ai-models")
