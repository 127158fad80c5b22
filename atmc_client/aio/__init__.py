"""The client for asyncio.

    async with AsyncClient("http://127.0.0.1:8000") as client:
        async for event in client.events(job_id, follow=True):
            ...

`atmc_client.sync` is written from this package by `python -m generators`.
"""

from atmc_client.aio.client import AsyncClient

__all__ = ["AsyncClient"]
