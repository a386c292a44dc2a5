"""The same with asyncio and httpx:  python async_look_up.py [NAME]"""

from __future__ import annotations

import asyncio
import sys

import httpx

from waypost import aio
from waypost.httpx import AsyncWaypostTransport


async def main(name: str) -> None:
    print(await aio.get_service_url(name))
    async with httpx.AsyncClient(transport=AsyncWaypostTransport()) as http:
        responses = await asyncio.gather(*(http.get(f"http://{name}/health") for _ in range(10)))
    print([response.status_code for response in responses])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "ai-models"))
