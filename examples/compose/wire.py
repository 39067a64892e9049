"""Listens on the compose network's bridge while something is called, and says what of it could be read there: prints `tls` where
all that went to or from a port began as TLS and none of the words given was in it. Linux, root.

    wire.py INTERFACE PORT WORD... -- COMMAND..."""

import socket
import struct
import subprocess
import sys

split = sys.argv.index("--")
interface, port, *words = sys.argv[1:split]
sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
sniffer.bind((interface, 0))
# What goes from container to container does not pass the bridge's own end unless that asks for everything.
everything = struct.pack("IHH8s", socket.if_nametoindex(interface), 1, 0, b"")
sniffer.setsockopt(263, 1, everything)  # SOL_PACKET, PACKET_ADD_MEMBERSHIP of PACKET_MR_PROMISC
sniffer.settimeout(0.5)
subprocess.run(sys.argv[split + 1 :], check=True, stdout=subprocess.DEVNULL)

streams = {}
while True:
    try:
        frame = sniffer.recv(65535)
    except TimeoutError:
        break
    if len(frame) < 54 or frame[12:14] != b"\x08\x00" or frame[23] != 6:
        continue
    ip = frame[14:]
    tcp = ip[(ip[0] & 15) * 4 : struct.unpack("!H", ip[2:4])[0]]
    ports = struct.unpack("!HH", tcp[:4])
    if int(port) in ports:
        streams.setdefault((ip[12:20], ports), bytearray()).extend(tcp[(tcp[12] >> 4) * 4 :])

streams = [bytes(stream) for stream in streams.values() if stream]
seen = [word for word in words if any(word.encode() in stream for stream in streams)]
if not streams:
    sys.exit(f"nothing went to or from port {port}")
if seen:
    sys.exit(f"readable on the wire: {', '.join(seen)}")
# A record of TLS begins with its type (handshake, alert, change of cipher or data) and version 3.x. A connection that was open
# before begins anywhere in between records, but its first segment with one.
if not all(stream[0] in (20, 21, 22, 23) and stream[1] == 3 for stream in streams):
    sys.exit("something on the wire is no TLS")
print("tls")
