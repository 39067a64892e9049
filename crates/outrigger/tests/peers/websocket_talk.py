"""A WebSocket service and a client of it, with an outrigger between.

Usage: websocket_talk.py APP_PORT OUTRIGGER_PORT. The service listens on APP_PORT; ends with 0 when all is as it should be.
"""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

app_port, proxy_port = map(int, sys.argv[1:3])


async def answer(socket):
    assert socket.request.headers["X-Forwarded-For"] == "127.0.0.1"
    async for message in socket:
        await socket.send(message[::-1])


async def main():
    async with serve(answer, "127.0.0.1", app_port, max_size=None):
        async with connect(f"ws://127.0.0.1:{proxy_port}/chat?x=y", max_size=None, proxy=None) as socket:
            for message in ["hello", "", "é" * 10, b"\x00\xff" * 100_000]:
                await socket.send(message)
                assert await asyncio.wait_for(socket.recv(), 10) == message[::-1]
            await asyncio.wait_for(await socket.ping(), 10)
        assert socket.close_code == 1000, socket.close_code
    print("talked")


asyncio.run(main())
