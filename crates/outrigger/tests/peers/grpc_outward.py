"""A gRPC service at several ports, each of which tells its own, and a client with one channel.

Usage: grpc_outward.py serve PORT... | call TARGET. The client ends with 0 when calls of all shapes reached every port.
"""

import sys
import threading
import time
from collections import Counter
from concurrent import futures

import grpc

UNARY, STREAM = "/test.Who/Unary", "/test.Who/Stream"


def serve(port):
    def unary(request, context):
        # Slow enough for a busy machine's own delays not to look like an endpoint's.
        time.sleep(0.02)
        return port.encode()

    def stream(requests, context):
        for request in requests:
            yield port.encode() + b" " + request

    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Stream": grpc.stream_stream_rpc_method_handler(stream),
    }
    server = grpc.server(futures.ThreadPoolExecutor(40), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Who", handlers),))
    assert server.add_insecure_port(f"[::]:{port}")
    server.start()
    return server


if sys.argv[1] == "serve":
    servers = [serve(port) for port in sys.argv[2:]]
    threading.Event().wait()

channel = grpc.insecure_channel(sys.argv[2])
unary, stream = channel.unary_unary(UNARY), channel.stream_stream(STREAM)
one_by_one = Counter(unary(b"?", timeout=20) for _ in range(60))
at_once = Counter(call.result() for call in [unary.future(b"?", timeout=20) for _ in range(60)])

# Streams that are all open at once, each answered message by message.
open_streams, turns = [], []
for _ in range(8):
    turn = threading.Semaphore(0)

    def words(turn=turn):
        for word in [b"one", b"two", b"three"]:
            turn.acquire()
            yield word

    open_streams.append(stream(words(), timeout=20))
    turns.append(turn)
streams = [[] for _ in open_streams]
for word in [b"one", b"two", b"three"]:
    for heard, answers, turn in zip(streams, open_streams, turns):
        turn.release()
        heard.append(next(answers))
for heard, answers in zip(streams, open_streams):
    assert list(answers) == [] and len({answer.split()[0] for answer in heard}) == 1, heard
    assert [answer.split()[1] for answer in heard] == [b"one", b"two", b"three"], heard
streams = Counter(heard[0].split()[0] for heard in streams)

print("one by one", one_by_one, "at once", at_once, "streams", streams)
for shape, least in [(one_by_one, 10), (at_once, 10), (streams, 1)]:
    assert len(shape) == 2 and min(shape.values()) >= least, shape
channel.close()
