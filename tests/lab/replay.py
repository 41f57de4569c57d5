"""Capture files sent over the lab's cable by tcpreplay: the packets of the past pass once more."""

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import zstandard

from tests.lab.network import INTERFACE, Network

# To and from no machine, the cable's ends included, so that the receiving kernel drops the frames when it has
# shown them to whoever captures. Locally administered addresses: RFC 9542 section 2.1.
_MAC_ADDRESSES: Final = bytes.fromhex("020000000002 020000000001")

# Ethernet and Linux SLL (https://www.tcpdump.org/linktypes.html), and the bytes of their headers. In both the
# last two say what follows, in the same numbers.
_ETHERNET: Final = 1
_LINK_HEADER_BYTES: Final = {_ETHERNET: 14, 113: 16}
_ETHERTYPE_BYTES: Final = 2

# pcap-savefile(5), of little-endian files with microseconds.
_FILE_HEADER: Final = struct.Struct("<4s16sI")
_PACKET_HEADER: Final = struct.Struct("<8sII")
_MAGIC: Final = b"\xd4\xc3\xb2\xa1"

_SENT: Final = re.compile(r"Successful packets: +(\d+)\s+Failed packets: +(\d+)\s+Truncated packets: +(\d+)")


@contextmanager
def silent_network() -> Iterator[Network]:
    """Two hosts without addresses, which ask and answer nothing: only what is replayed is on the cable."""
    with Network(addresses=0) as network:
        for host in (network.client, network.server):
            host.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"])
        yield network


def as_ethernet(capture: Path, copy: Path) -> int:
    """Copies a capture as the cable can carry it: not compressed, each packet in an Ethernet frame. Returns
    how many there are.

    By hand, because Debian 12's tcprewrite (4.4.3) makes of Linux SLL frames that nobody can read.
    """
    packed = capture.read_bytes()
    whole = (
        zstandard.ZstdDecompressor().decompressobj().decompress(packed)
        if capture.suffix == ".zst"
        else packed
    )
    magic, versions_to_snap_length, link_type = _FILE_HEADER.unpack_from(whole)
    assert magic == _MAGIC, f"{capture.name}: not a pcap file of the kind that the lab has"
    header_bytes = _LINK_HEADER_BYTES[link_type] - _ETHERTYPE_BYTES
    added = len(_MAC_ADDRESSES) - header_bytes
    written = [_FILE_HEADER.pack(magic, versions_to_snap_length, _ETHERNET)]
    packets, at = 0, _FILE_HEADER.size
    while at < len(whole):
        time, captured, length = _PACKET_HEADER.unpack_from(whole, at)
        at += _PACKET_HEADER.size
        written += [
            _PACKET_HEADER.pack(time, captured + added, length + added),
            _MAC_ADDRESSES,
            whole[at + header_bytes : at + captured],
        ]
        at += captured
        packets += 1
    copy.write_bytes(b"".join(written))
    return packets


def replay(network: Network, capture: Path, *, packets_per_second: int) -> int:
    """Sends a capture of Ethernet frames from the client's end, and returns how many when all are on the
    cable.

    Raises RuntimeError if one of them could not be sent whole.
    """
    said = network.client.run(
        ["tcpreplay", "--pps", str(packets_per_second), "--intf1", INTERFACE, capture]
    ).stdout
    sent = _SENT.search(said)
    if sent is None or sent[2] != "0" or sent[3] != "0":
        raise RuntimeError(f"tcpreplay could not send all of {capture.name}: {said}")
    return int(sent[1])
