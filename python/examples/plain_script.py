"""A plain program that calls services by name until it is stopped:  python plain_script.py

It prints a line of JSON per second: how many requests succeeded, how many failed.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter

import httpx

from waypost.httpx import WaypostTransport

counts: Counter[str] = Counter()


def call(http: httpx.Client, url: str) -> None:
    while True:
        try:
            http.get(url, timeout=30).raise_for_status()
            counts["succeeded"] += 1
        except httpx.HTTPError as error:
            counts["failed"] += 1
            print(f"{url}: {error!r}", flush=True)


if __name__ == "__main__":
    client = httpx.Client(transport=WaypostTransport())
    for address in ["http://shop/order", "http://shop/price", "http://stock/value"]:
        threading.Thread(target=call, args=(client, address), daemon=True).start()
    while True:
        time.sleep(1)
        print(json.dumps(counts), flush=True)
