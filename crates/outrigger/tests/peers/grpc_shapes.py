"""A gRPC service and a client of it, with an outrigger between: all four shapes, metadata, trailers, errors.

Usage: grpc_shapes.py APP_PORT OUTRIGGER_PORT. The service listens on APP_PORT; ends with 0 when all is as it should be.
"""

import sys
import threading
from concurrent import futures

import grpc

app_port, proxy_port = sys.argv[1:3]
seen = []


def unary(request, context):
    metadata = dict(context.invocation_metadata())
    seen.append(metadata.get("x-forwarded-for"))
    context.set_trailing_metadata((("x-trailer", "end"),))
    if request == b"fail":
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
    return request.upper()


def server_stream(request, context):
    for n in range(int(request)):
        yield str(n).encode()


def client_stream(requests, context):
    return str(sum(len(r) for r in requests)).encode()


def both_streams(requests, context):
    for request in requests:
        yield request[::-1]


handlers = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Server": grpc.unary_stream_rpc_method_handler(server_stream),
    "Client": grpc.stream_unary_rpc_method_handler(client_stream),
    "Both": grpc.stream_stream_rpc_method_handler(both_streams),
}
server = grpc.server(futures.ThreadPoolExecutor(8))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Shapes", handlers),))
assert server.add_insecure_port(f"127.0.0.1:{app_port}")
server.start()

channel = grpc.insecure_channel(f"127.0.0.1:{proxy_port}")
grpc.channel_ready_future(channel).result(timeout=10)
limit = {"timeout": 20}

call = channel.unary_unary("/test.Shapes/Unary")
answer, details = call.with_call(b"hello", **limit)
assert answer == b"HELLO", answer
assert dict(details.trailing_metadata())["x-trailer"] == "end"
assert seen == ["127.0.0.1"], seen
try:
    call(b"fail", **limit)
    raise AssertionError("an error got lost")
except grpc.RpcError as e:
    assert (e.code(), e.details()) == (grpc.StatusCode.PERMISSION_DENIED, "no"), e
assert len(call(b"x" * 3_000_000, **limit)) == 3_000_000

answers = list(channel.unary_stream("/test.Shapes/Server")(b"500", **limit))
assert answers == [str(n).encode() for n in range(500)]

answer = channel.stream_unary("/test.Shapes/Client")(iter([b"x" * 1000] * 300), **limit)
assert answer == b"300000", answer

# Each answer is awaited before the next message is sent: nothing may be held back.
said, ready = [], threading.Semaphore(1)


def talk():
    for word in [b"one", b"two", b"three"]:
        ready.acquire(timeout=10)
        yield word


for answer in channel.stream_stream("/test.Shapes/Both")(talk(), **limit):
    said.append(answer)
    ready.release()
assert said == [b"eno", b"owt", b"eerht"], said
print("all four shapes")
channel.close()
server.stop(0).wait()
