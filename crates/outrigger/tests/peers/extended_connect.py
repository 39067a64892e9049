"""A WebSocket within an HTTP/2 stream (RFC 8441), with an outrigger before a WebSocket service that speaks HTTP/1.1.

Usage: extended_connect.py APP_PORT OUTRIGGER_PORT. The service listens on APP_PORT; ends with 0 when all is as it should be.
"""

import asyncio
import socket
import struct
import sys
import threading

import h2.config
import h2.connection
import h2.events
import h2.settings
from websockets.asyncio.server import serve

app_port, proxy_port = map(int, sys.argv[1:3])
up = threading.Event()


def service():
    async def answer(ws):
        async for message in ws:
            await ws.send(message.upper())

    async def main():
        async with serve(answer, "127.0.0.1", app_port):
            up.set()
            await asyncio.Future()

    asyncio.run(main())


threading.Thread(target=service, daemon=True).start()
assert up.wait(10)

sock = socket.create_connection(("127.0.0.1", proxy_port), timeout=10)
conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
conn.initiate_connection()
sock.sendall(conn.data_to_send())
events = []


def wait_for(kind):
    while True:
        for event in events:
            if isinstance(event, kind):
                events.remove(event)
                return event
        data = sock.recv(65536)
        assert data, "the connection ended"
        events.extend(conn.receive_data(data))
        sock.sendall(conn.data_to_send())


wait_for(h2.events.RemoteSettingsChanged)
assert conn.remote_settings.enable_connect_protocol == 1
conn.send_headers(1, [
    (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/chat"), (":authority", "a.example"),
    ("sec-websocket-version", "13"),
])
sock.sendall(conn.data_to_send())
head = dict(wait_for(h2.events.ResponseReceived).headers)
assert head[":status"] == "200", head
assert "sec-websocket-accept" not in head and "upgrade" not in head, head

text = b"hello"
mask = b"\x01\x02\x03\x04"
frame = struct.pack("!BB", 0x81, 0x80 | len(text)) + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(text))
conn.send_data(1, frame)
sock.sendall(conn.data_to_send())
got = b""
while len(got) < 7:
    got += wait_for(h2.events.DataReceived).data
assert got == b"\x81\x05HELLO", got

conn.send_headers(3, [(":method", "CONNECT"), (":authority", "a.example:80")])
sock.sendall(conn.data_to_send())
head = dict(wait_for(h2.events.ResponseReceived).headers)
assert head[":status"] == "405", head
print("talked")
