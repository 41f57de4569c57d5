"""Live capture with libpcap: real traffic in network namespaces of its own, the sockets as witnesses.

The probe runs in this process; a thread enters the namespace to open it (setns works for one thread).
"""

import ctypes
import os
import socket
import struct
import subprocess
import threading
import time
from contextlib import contextmanager

import pytest

from probes.frames import FrameDecoder
from probes.pcap.filter import kernel_filter
from probes.pcap.live import LivePcapProbe
from probes.probe import PacketCounts, ProbeUnavailable, Verdict

PORTS = frozenset((25, 587))
SERVER, CLIENT = "frames-server", "frames-client"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def wire():
    """Two namespaces and a cable between them: 10.98.0.1 and fd98::1 serve, 10.98.0.2 and fd98::2 call."""
    for name in (SERVER, CLIENT):
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        ip("netns", "add", name)
        ip("-n", name, "link", "set", "lo", "up")
    try:
        lay_cable()
        yield
    finally:
        for name in (SERVER, CLIENT):
            ip("netns", "del", name)


def lay_cable():
    ip("link", "add", "cable", "netns", SERVER, "type", "veth", "peer", "cable", "netns", CLIENT)
    for number, name in enumerate((SERVER, CLIENT), start=1):
        ip("-n", name, "addr", "add", f"10.98.0.{number}/24", "dev", "cable")
        ip("-n", name, "addr", "add", f"fd98::{number}/64", "dev", "cable", "nodad")
        ip("-n", name, "link", "set", "cable", "up")


def inside(namespace, work):
    """Runs `work` in a thread that has entered the namespace; sockets made there stay there."""
    outcome = []

    def run():
        with open(f"/run/netns/{namespace}") as file:
            setns(file.fileno())
        try:
            outcome.append((work(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


def setns(descriptor):
    """As os.setns of Python 3.12."""
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, 0x40000000) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def in_server(work):
    return inside(SERVER, work)


def talk(server_namespace, client_namespace, address, sent, port=25):
    """One connection; the server greets, the client sends `sent` and closes."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def listen():
        server = socket.socket(family)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.listen()
        server.settimeout(5)
        return server

    def call():
        client = socket.socket(family)
        client.settimeout(5)
        return client

    server = inside(server_namespace, listen)
    client = inside(client_namespace, call)
    received = bytearray()

    def serve():
        connection, _ = server.accept()
        connection.sendall(b"220 ready\r\n")
        while piece := connection.recv(65_536):
            received.extend(piece)
        connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    client.connect((address, port))
    client_port = client.getsockname()[1]
    client.recv(100)
    client.sendall(sent)
    client.close()
    thread.join(5)
    server.close()
    assert received == sent
    return client_port


@contextmanager
def watching(interfaces, ports=PORTS, namespace=SERVER):
    probe = inside(namespace, lambda: LivePcapProbe(interfaces, ports))
    try:
        yield probe
    finally:
        probe.close()


def collect(probe, seconds=0.8):
    """Segments until `seconds` have passed."""
    segments = []
    until = time.monotonic() + seconds
    for batch in probe.batches():
        segments.extend(batch)
        if time.monotonic() > until:
            return segments
    raise AssertionError("a live probe does not end")


def sent_again():
    """Segments that TCP has sent again in the thread's namespace; RFC 2012's tcpRetransSegs."""
    with open("/proc/thread-self/net/snmp") as file:
        names, values = (line.split() for line in file if line.startswith("Tcp:"))
    return int(dict(zip(names, values, strict=True))["RetransSegs"])


def bytes_sent(segments, port):
    """What the source port sent, by sequence numbers; a copy of a segment would show as a repetition.

    On a busy machine TCP itself sends some of it again, and the kernel counts that.
    """
    pieces = [(s.sequence, s.payload, s.length) for s in segments if s.source_port == port and s.length]
    assert len(pieces) - len(set(pieces)) <= inside(SERVER, sent_again) + inside(CLIENT, sent_again)
    first = pieces[0][0]
    sent = bytearray()
    for at, payload, length in sorted(
        ((s - first) % 2**32, payload, length) for s, payload, length in pieces
    ):
        assert len(payload) == length
        assert at <= len(sent)
        sent[at : at + length] = payload
    return bytes(sent)


BODY = bytes(range(256)) * 1200


@needs_root
@pytest.mark.live
@pytest.mark.parametrize("interface", ["cable", "any"])
@pytest.mark.parametrize("address", ["10.98.0.1", "fd98::1"])
def test_every_byte_of_a_connection_is_seen_once(wire, interface, address):
    with watching([interface]) as probe:
        port = talk(SERVER, CLIENT, address, BODY)
        talk(SERVER, CLIENT, address, b"nothing", port=2500)
        segments = collect(probe)
        assert bytes_sent(segments, port) == BODY
        assert bytes_sent(segments, 25) == b"220 ready\r\n"
        assert probe.interfaces_up() == {interface: True}
        assert probe.counts.seen[Verdict.SEGMENT] == len(segments)
        # Multicast listener reports have an extension header; beside them nothing passes the kernel's filter.
        assert set(probe.counts.seen) <= {Verdict.SEGMENT, Verdict.NOT_TCP}
        assert probe.counts.dropped.total() == 0


@needs_root
@pytest.mark.live
@pytest.mark.parametrize("interface", ["lo", "any"])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_loopback_is_seen_once(wire, interface, address):
    with watching([interface]) as probe:
        port = talk(SERVER, SERVER, address, BODY)
        segments = collect(probe)
        assert bytes_sent(segments, port) == BODY
        assert sum(1 for s in segments if s.flags & 2) == 2


@needs_root
@pytest.mark.live
def test_several_interfaces_at_once(wire):
    with watching(["lo", "cable", "lo"]) as probe:
        one = talk(SERVER, SERVER, "127.0.0.1", b"to loopback")
        other = talk(SERVER, CLIENT, "10.98.0.1", b"through the cable", port=587)
        segments = collect(probe)
        assert bytes_sent(segments, one) == b"to loopback"
        assert bytes_sent(segments, other) == b"through the cable"
        assert probe.interfaces_up() == {"lo": True, "cable": True}


def send_frames(frames):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("cable", 0))
        for frame in frames:
            raw.send(frame)


def some_packet(frames_of, name):
    """A real packet with a payload, with the watched port 25."""
    decoder = FrameDecoder(PORTS, PacketCounts())
    for frame in frames_of(name):
        segment = decoder.decode(*frame)
        if segment is not None and segment.length > 30 and len(frame.frame) < 1000:
            return frame.frame, segment
    raise AssertionError(f"no packet in {name}")


@needs_root
@pytest.mark.live
@pytest.mark.parametrize("interface", ["cable", "any"])
def test_the_kernel_filter_lets_the_odd_ones_through(wire, interface, frames_of):
    """Fragments, extension headers, one and two VLAN tags, sent raw; and nothing that is not asked for."""
    frame, expected = some_packet(frames_of, "plain_single")
    ip6_frame, ip6_expected = some_packet(frames_of, "ipv6")
    first, second = bytearray(frame[: 34 + 40]), bytearray(frame[:34] + frame[74:])
    first[16:18], first[20:22] = struct.pack("!H", 60), b"\x20\0"
    second[16:18], second[20:22] = struct.pack("!H", len(second) - 14), b"\0\5"
    options = bytearray(ip6_frame[:54] + b"\6\0\1\4\0\0\0\0" + ip6_frame[54:])
    options[18:20], options[20] = struct.pack("!H", len(options) - 54), 60
    tagged = frame[:12] + b"\x81\0\0\7" + frame[12:]
    tagged_twice = frame[:12] + b"\x88\xa8\0\7\x81\0\0\x08" + frame[12:]
    other_port = bytearray(frame)
    other_port[34:38] = b"\x12\x34\x12\x35"
    frames = [bytes(f) for f in (second, first, options, tagged, other_port)]
    watched = [expected, ip6_expected, expected]
    if interface != "any":  # where the kernel takes two tags apart wrongly
        frames.append(tagged_twice)
        watched.append(expected)
    with watching([interface]) as probe:
        inside(CLIENT, lambda: send_frames(frames))
        segments = [segment.replace(at_ns=0) for segment in collect(probe)]
        assert segments == [segment.replace(at_ns=0) for segment in watched]
        assert probe.counts.seen[Verdict.FRAGMENT] == 2
        assert probe.counts.seen[Verdict.OTHER_PORT] == 0


@needs_root
@pytest.mark.live
def test_an_interface_that_goes_away_is_taken_up_again(wire, monkeypatch):
    monkeypatch.setattr("probes.pcap.live.RETRY_SECONDS", 0.3)
    with watching(["lo", "cable"]) as probe:
        ip("-n", SERVER, "link", "del", "cable")
        inside(SERVER, lambda: collect(probe))
        assert probe.interfaces_up() == {"lo": True, "cable": False}
        port = talk(SERVER, SERVER, "127.0.0.1", b"lo goes on")
        assert bytes_sent(inside(SERVER, lambda: collect(probe)), port) == b"lo goes on"
        lay_cable()
        inside(SERVER, lambda: collect(probe))
        assert probe.interfaces_up() == {"lo": True, "cable": True}
        port = talk(SERVER, CLIENT, "10.98.0.1", b"back again")
        assert bytes_sent(inside(SERVER, lambda: collect(probe)), port) == b"back again"


@needs_root
@pytest.mark.live
@pytest.mark.parametrize("gone", ["down", "del"])
def test_what_came_just_before_an_interface_goes_is_read(wire, gone):
    with watching(["cable"]) as probe:
        port = talk(SERVER, CLIENT, "10.98.0.1", b"the last words")
        ip("-n", SERVER, "link", *(["set", "cable", "down"] if gone == "down" else ["del", "cable"]))
        segments = collect(probe)
        assert bytes_sent(segments, port) == b"the last words"
        assert probe.interfaces_up() == {"cable": False}


@needs_root
@pytest.mark.live
@pytest.mark.parametrize("gone", ["down", "del"])
def test_without_any_interface_there_are_heartbeats_and_no_hurry(wire, gone):
    with watching(["cable"]) as probe:
        command = ["set", "cable", "down"] if gone == "down" else ["del", "cable"]
        ip("-n", SERVER, "link", *command)
        beats = 0
        started, used = time.monotonic(), time.process_time()
        for batch in probe.batches():
            assert batch == []
            beats += 1
            if time.monotonic() - started > 1.5:
                break
        assert probe.interfaces_up() == {"cable": False}
        assert 5 <= beats <= 25
        assert time.process_time() - used < 0.5


@needs_root
@pytest.mark.live
def test_what_the_kernel_dropped_is_counted(wire, monkeypatch):
    monkeypatch.setattr("probes.pcap.live.BUFFER_BYTES", 300_000)
    with watching(["lo"]) as probe:
        for _ in range(10):
            talk(SERVER, SERVER, "127.0.0.1", BODY)
        segments = collect(probe)
        assert len(segments) == probe.counts.seen[Verdict.SEGMENT]
        assert probe.counts.dropped["kernel"] > 0


@needs_root
@pytest.mark.live
def test_closing_gives_everything_back(wire):
    before = len(os.listdir("/proc/self/fd"))
    with watching(["lo", "cable", "any"]) as probe:
        next(probe.batches())
        assert len(os.listdir("/proc/self/fd")) > before
    probe.close()
    assert len(os.listdir("/proc/self/fd")) == before


@needs_root
def test_an_unknown_interface_is_said_with_those_that_exist():
    with pytest.raises(ProbeUnavailable, match=r"no interface 'eth99'.*any, lo"):
        LivePcapProbe(["eth99"], PORTS)


@needs_root
@pytest.mark.live
def test_an_interface_that_is_down_is_said_with_the_command_that_mends_it(wire):
    ip("-n", SERVER, "link", "set", "cable", "down")
    with pytest.raises(ProbeUnavailable) as caught:
        in_server(lambda: LivePcapProbe(["lo", "cable"], PORTS))
    assert caught.value.remedy == "ip link set cable up"


def test_without_privilege_the_remedy_is_named():
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setresuid(65534, 65534, 65534)
            LivePcapProbe(["lo"], PORTS)
        except ProbeUnavailable as error:
            os._exit(0 if "CAP_NET_RAW" in error.remedy and "no privilege" in str(error) else 2)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("link_type", [1, 113, 276, 12])
def test_tcpdump_too_understands_the_filter(link_type, run_tool, tmp_path):
    path = tmp_path / "head.pcap"
    path.write_bytes(
        struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 101 if link_type == 12 else link_type)
    )
    run_tool(["tcpdump", "-d", "-r", path, kernel_filter(PORTS)])
