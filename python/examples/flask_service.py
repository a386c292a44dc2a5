"""A Flask service that calls another one by name:  python flask_service.py PORT"""

from __future__ import annotations

import sys
from typing import Any

import requests
from flask import Flask

from waypost.registration import register_service
from waypost.requests import WaypostAdapter

app = Flask("stock")
session = requests.Session()
session.mount("http://", WaypostAdapter())


@app.get("/stock")
def stock() -> dict[str, Any]:
    return {"left": 3}


@app.get("/value")
def value() -> dict[str, Any]:
    price = session.get("http://shop/price", timeout=30).json()["price"]
    return {"value": 3 * price}


if __name__ == "__main__":
    port = int(sys.argv[1])
    register_service(app, "stock", port, version="1.0.0", check_interval="1s")
    app.run("127.0.0.1", port)
