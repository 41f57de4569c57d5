"""Packets that no well-behaved TCP sends, made by hand."""

import fcntl
import io
import os
import random
import socket
import struct
from ipaddress import ip_address
from typing import Final

from tests.lab.network import INTERFACE
from tests.probes.cross_check import PORT

ETH_P_ALL: Final = 3  # linux/if_ether.h
# linux/in.h and linux/in6.h: fragment whatever is too long.
IP_MTU_DISCOVER: Final = 10
IP_PMTUDISC_DONT: Final = 0
# linux/if_tun.h
TUNSETIFF: Final = 0x400454CA
IFF_TUN_NO_PI: Final = 0x1001


def segment_bytes(sequence: int, payload: bytes) -> bytes:
    """A TCP segment with no checksum, towards the watched port."""
    return struct.pack("!HHIIBBHHH", 40_000, PORT, sequence, 0, 0x50, 0x18, 1024, 0, 0) + payload


def ip_packet(destination: str, segment: bytes) -> bytes:
    address = ip_address(destination)
    if address.version == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 1, 0, 64, socket.IPPROTO_TCP, 0)
        return head + ip_address("10.99.0.1").packed + address.packed + segment
    head = struct.pack("!IHBB", 6 << 28, len(segment), socket.IPPROTO_TCP, 64)
    return head + ip_address("fd99::1").packed + address.packed + segment


def send_fragmented(destination: str, count: int) -> None:
    """Sends segments longer than the MTU through a raw socket, so that the kernel fragments them."""
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP) as sender:
        if family == socket.AF_INET:
            sender.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
        for number in range(count):
            payload = bytes([number]) * (3000 + 400 * number)
            sender.sendto(segment_bytes(number * 100_000, payload), (destination, 0))


def open_tun(name: str) -> io.FileIO:
    """A device whose packets begin with their IP header; what is written into the file arrives on it."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN_NO_PI))
    return io.FileIO(descriptor, "r+")


def hostile_frame(chance: random.Random, number: int) -> bytes:
    """A frame towards the watched port, with some bytes of its headers overwritten."""
    destination = "10.77.0.1" if number % 2 else "fd77::1"
    packet = bytearray(ip_packet(destination, segment_bytes(number, chance.randbytes(number % 300))))
    for _ in range(chance.randrange(4)):
        packet[chance.randrange(min(len(packet), 64))] = chance.randrange(256)
    if number % 7 == 0:
        del packet[chance.randrange(1, len(packet)) :]
    ethertype = b"\x08\x00" if number % 2 else b"\x86\xdd"
    tags = b"\x81\x00\x00\x0a" * (chance.randrange(7) if number % 5 == 0 else 0)
    return b"\xff" * 6 + b"\x02" * 6 + tags + ethertype + bytes(packet)


def send_frames(frames: list[bytes]) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
        sender.bind((INTERFACE, 0))
        for frame in frames:
            sender.send(frame)
