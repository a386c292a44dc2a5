"""A FastAPI service that calls another one by name:  python fastapi_service.py PORT"""

from __future__ import annotations

import os
import sys
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from waypost.helpers import register_health_check_endpoint
from waypost.httpx import AsyncWaypostTransport
from waypost.registration import register_service

app = FastAPI()
http = httpx.AsyncClient(transport=AsyncWaypostTransport())


async def check_event_loop() -> bool:
    return True


@app.get("/order")
async def order() -> dict[str, Any]:
    stock = await http.get("http://stock/stock")
    return {"pid": os.getpid(), "stock": stock.json()}


@app.get("/price")
async def price() -> dict[str, int]:
    return {"price": 7}


if __name__ == "__main__":
    port = int(sys.argv[1])
    register_health_check_endpoint(app, "shop", [check_event_loop])
    register_service(app, "shop", port, version="1.0.0", check_interval="1s")
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")
