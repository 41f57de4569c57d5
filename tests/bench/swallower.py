"""A server that takes all mail and forgets it: `swallower.py ADDRESS PORT`.

It costs little, whatever the size of a message, and lets many sessions stand open at once.
"""

import asyncio
import resource
import sys
from typing import Final

_END: Final = b"\r\n.\r\n"
_BACKLOG: Final = 4_096  # net.core.somaxconn of Linux since 5.4
_REPLIES: Final = {
    b"EHLO": b"250-mx.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n",
    b"DATA": b"354 Go ahead\r\n",
    b"QUIT": b"221 2.0.0 Bye\r\n",
}


class Session(asyncio.Protocol):
    def __init__(self) -> None:
        self._line = b""
        self._is_message = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(b"220 mx.test ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        if self._is_message:
            # Only the end is looked at: a client waits for the reply to it.
            self._line = (self._line + data[-len(_END) :])[-len(_END) :]
            if self._line == _END:
                self._is_message, self._line = False, b""
                self._transport.write(b"250 2.0.0 Taken\r\n")
            return
        *lines, self._line = (self._line + data).split(b"\r\n")
        for line in lines:
            verb = line[:4].upper()
            self._transport.write(_REPLIES.get(verb, b"250 2.0.0 Ok\r\n"))
            if verb == b"DATA":
                self._is_message, self._line = True, b"\r\n"
            elif verb == b"QUIT":
                self._transport.close()


async def main() -> None:
    # Each connection is a descriptor.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Session, sys.argv[1], int(sys.argv[2]), backlog=_BACKLOG)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
