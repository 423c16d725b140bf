"""A client of TLS in Python: both versions, resumption, and orderly ends. Arguments: port, file of the authority."""

import asyncio
import socket
import ssl
import struct
import sys

OHAI = b"/qio/ohai"
PING = b"/qio/ping:1=null"

port = int(sys.argv[1])


def context(version):
    context = ssl.create_default_context(cafile=sys.argv[2])
    context.minimum_version = context.maximum_version = version
    return context


def connect(context, session=None):
    plain = socket.create_connection(("127.0.0.1", port), timeout=60)
    stream = context.wrap_socket(plain, server_hostname="localhost", session=session)
    stream.sendall(OHAI)
    assert stream.recv(len(OHAI)) == OHAI
    return stream


for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    settings = context(version)
    first = connect(settings)
    assert not first.session_reused
    second = connect(settings, first.session)
    assert second.session_reused
    # The server answers close_notify, and then ends the stream.
    assert first.unwrap().recv(1) == b""
    assert second.unwrap().recv(1) == b""


async def pings():
    settings = context(ssl.TLSVersion.TLSv1_3)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=settings, server_hostname="localhost")
    writer.write(OHAI)
    assert await reader.readexactly(len(OHAI)) == OHAI
    for _ in range(1000):
        writer.write(struct.pack(">Q", len(PING)) + PING)
    for _ in range(1000):
        (length,) = struct.unpack(">Q", await reader.readexactly(8))
        assert (await reader.readexactly(length)).startswith(b"/qio/callback/1")
    writer.close()
    await writer.wait_closed()


asyncio.run(asyncio.wait_for(pings(), 60))
print("ok")
