"""The packet sockets that the filter hangs on, each following an interface by its name.

The kernel takes a socket off its interface when that is deleted, and shows it nothing while it is down. An
interface which comes back under its name has a new index, so the socket must be bound again, which needs no
privilege.
"""

import errno
import socket
import struct
from fcntl import ioctl
from typing import Final, Protocol

from probes.probe import ProbeUnavailable

ANY: Final = "any"

# asm-generic/socket.h, which Python's socket module does not hold.
_SO_LOCK_FILTER: Final = 44
_SO_ATTACH_BPF: Final = 50
# linux/if_ether.h
_ETH_P_ALL: Final = 3
# linux/sockios.h and linux/if.h; struct ifreq is a name of 16 bytes and a union of 24.
_SIOCGIFFLAGS: Final = 0x8913
_IFF_UP: Final = 1
_IFREQ: Final = struct.Struct("16sH22x")


def _attach(packets: socket.socket, program: int) -> None:
    """For good: whoever gets hold of the socket can't take the filter off it, and see all packets."""
    packets.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, program)
    packets.setsockopt(socket.SOL_SOCKET, _SO_LOCK_FILTER, 1)


def attach_for_trial(program: int) -> None:
    """To a socket that receives nothing, and is gone then. Raises ProbeUnavailable."""
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as packets:
            _attach(packets, program)
    except OSError as error:
        raise ProbeUnavailable(
            f"the eBPF filter can't be attached to a packet socket: {error.strerror}",
            "see net.core.optmem_max"
            if error.errno == errno.ENOMEM
            else "let `--probe auto` capture with libpcap",
        ) from None


class Tap(Protocol):
    """Shows the filter the packets of something."""

    def follow(self) -> bool:
        """Whether packets are captured now, after an attempt to mend it if they are not."""

    def close(self) -> None: ...


class InterfaceTap:
    """Shows the filter the packets of the interface that has this name at the time.

    Raises OSError when there is none, or without CAP_NET_RAW.
    """

    def __init__(self, interface: str, program: int) -> None:
        self._interface = interface
        # Protocol 0 receives nothing: no packet gets past the filter before it is there.
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        try:
            _attach(self._socket, program)
            self._socket.bind((interface, _ETH_P_ALL))
        except OSError:
            self._socket.close()
            raise

    def follow(self) -> bool:
        try:
            # The name now of the interface that the socket is bound to; empty when that is gone.
            if self._socket.getsockname()[0] != self._interface:
                self._socket.bind((self._interface, _ETH_P_ALL))
            answer = ioctl(self._socket, _SIOCGIFFLAGS, _IFREQ.pack(self._interface.encode(), 0))
        except OSError:
            return False
        flags: int = _IFREQ.unpack(answer)[1]
        return bool(flags & _IFF_UP)

    def close(self) -> None:
        self._socket.close()


class AnyTap:
    """Shows the filter the packets of every interface, also of those to come."""

    def __init__(self, program: int) -> None:
        # Python can't bind to no interface in particular, so the socket is so from its birth.
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
        try:
            _attach(self._socket, program)
            self._forget_what_came_before_the_filter()
        except OSError:
            self._socket.close()
            raise

    def _forget_what_came_before_the_filter(self) -> None:
        self._socket.setblocking(False)
        try:
            while True:
                self._socket.recv(1)
        except BlockingIOError:
            return

    def follow(self) -> bool:
        return True

    def close(self) -> None:
        self._socket.close()
