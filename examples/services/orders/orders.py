"""`orders`, a service that needs only Python's standard library.

`waypost up` sets PORT, and CATALOG_URL, the URL of `catalog`.
"""

import json
import os
import signal
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = int(os.environ["PORT"])
CATALOG = os.environ.get("CATALOG_URL", "http://localhost:4200")
ORDERS = {"8821": ["tea", "milk"], "8822": ["bread"]}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        number = self.path.strip("/")
        if self.path == "/health":
            self.respond(200, {"status": "healthy"})
        elif number in ORDERS:
            order = {"order": number, "items": ORDERS[number], "total": None, "port": PORT}
            try:
                order["total"] = sum(price(item) for item in ORDERS[number])
            except OSError as error:
                # The order can be shown without its total.
                print(f"no prices from {CATALOG}: {error}", flush=True)
            self.respond(200, order)
        else:
            self.respond(404, {"error": f"no order {number}"})

    def respond(self, status: int, value: dict) -> None:
        body = json.dumps(value).encode() + b"\n"
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        if self.path != "/health":
            print(format % args, flush=True)


def price(item: str) -> int:
    """The price of an item, from `catalog`. The gateway picks the instance."""
    with urllib.request.urlopen(f"{CATALOG}/prices/{item}", timeout=5) as response:
        return json.load(response)["price"]


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
    # `waypost` removes the instance from the registry and then sends SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()
    sys.exit(0)
