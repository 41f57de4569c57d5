"""Capture files in every dress, whole and cut, held against tshark's opinion and against their own twins."""

import gc
import gzip
import os
import resource
import struct
import subprocess
import sys
import threading
import time
import zlib
from contextlib import closing, suppress
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from probes.frames import FrameDecoder
from probes.pcap.files import CaptureFilesProbe
from probes.pcap.opening import PARTS_FREE, ExpandsTooMuch, OpenInput
from probes.probe import CaptureFileError, CaptureInterrupted, PacketCounts, ProbeError, Verdict
from tests.probes.by_libpcap import by_libpcap

PORTS = frozenset((25, 465, 587))


def read(*paths, **options):
    probe = CaptureFilesProbe([str(path) for path in paths], PORTS, **options)
    return [segment for batch in probe.batches() for segment in batch]


def read_to_the_cut(*paths):
    """Segments, and the message of the CaptureInterrupted that must come after them."""
    probe = CaptureFilesProbe([str(path) for path in paths], PORTS)
    segments = []
    with pytest.raises(CaptureInterrupted) as caught:  # noqa: PT012 - what came before is wanted too
        for batch in probe.batches():
            segments.extend(batch)
    assert "\n" not in str(caught.value)
    return segments, str(caught.value), probe


def open_descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def plain(capture):
    return capture("starttls_tls13")


@pytest.fixture
def expected(plain):
    return read(plain)


def test_a_file_gives_what_tshark_sees(plain, tshark_segments):
    assert read(plain) == tshark_segments(plain)


# Formats


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nanoseconds", [False, True])
def test_pcap_in_both_byte_orders_and_resolutions(
    order, nanoseconds, frames_of, write_pcap, tmp_path, expected, tshark_segments
):
    path = write_pcap(tmp_path / "it", frames_of("starttls_tls13"), order=order, nanoseconds=nanoseconds)
    assert read(path) == expected == tshark_segments(path)


def test_nanoseconds_are_kept(frames_of, write_pcap, tmp_path):
    frames = [f._replace(at_ns=f.at_ns + 789) for f in frames_of("plain_single")]
    path = write_pcap(tmp_path / "it", frames, nanoseconds=True)
    assert {segment.at_ns % 1000 for segment in read(path)} == {789}


def pcap(frame, *, version=(2, 4), magic=0xA1B2C3D4, snap_length=0, lengths=None, link_type=1):
    """A file of one frame, in Linux's byte order."""
    captured, wire_length = lengths or (len(frame.frame), frame.wire_length)
    head = struct.pack("<IHHiIII", magic, *version, 0, 0, snap_length, link_type)
    seconds, rest_ns = divmod(frame.at_ns, 10**9)
    return head + struct.pack("<IIII", seconds, rest_ns // 1000, captured, wire_length) + frame.frame


@pytest.fixture
def data_frame(frames_of):
    """The longest of a capture."""
    return max(frames_of("starttls_tls13"), key=lambda frame: len(frame.frame))


def alone(frame):
    return [FrameDecoder(PORTS, PacketCounts()).decode(*frame)]


def test_versions_before_2_4_had_the_lengths_the_other_way_round(data_frame, tmp_path):
    cut = data_frame._replace(frame=data_frame.frame[:90])
    for minor in range(4):
        path = tmp_path / str(minor)
        path.write_bytes(pcap(cut, version=(2, minor), lengths=(cut.wire_length, 90)))
        assert read(path) == alone(cut)


def test_a_frame_ends_at_the_snap_length_of_its_file_as_for_libpcap(data_frame, tmp_path):
    path = tmp_path / "it"
    for snap_length, expected in (
        (70, data_frame._replace(frame=data_frame.frame[:70])),
        (0, data_frame),
        (2**31, data_frame),
    ):
        path.write_bytes(pcap(data_frame, snap_length=snap_length) + pcap(data_frame)[24:])
        assert read(path) == alone(expected) + alone(data_frame._replace(frame=expected.frame))


def test_a_frame_may_be_cut_in_its_headers(frames_of, write_pcap, tmp_path):
    """`tcpdump -s 60` cuts the options of TCP, and other frames follow."""
    frames = [frame for name in ("plain_single", "ipv6") for frame in frames_of(name)[:6]]
    for snap_length in range(100):
        cut = [frame._replace(frame=frame.frame[:snap_length]) for frame in frames]
        decoder = FrameDecoder(PORTS, PacketCounts())
        expected = [segment for frame in cut if (segment := decoder.decode(*frame)) is not None]
        assert read(write_pcap(tmp_path / "cut", cut)) == expected
        assert len(expected) > 8 or snap_length < 68


def test_the_headers_of_kuznetzov_are_longer(data_frame, tmp_path):
    path = tmp_path / "it"
    data = pcap(data_frame, magic=0xA1B2CD34)
    path.write_bytes(data[:40] + bytes(8) + data[40:])
    assert read(path) == alone(data_frame)


def test_what_stands_above_the_link_type_is_the_length_of_checksums(data_frame, tmp_path):
    path = tmp_path / "it"
    path.write_bytes(pcap(data_frame, link_type=0x5400_0001))
    assert read(path) == alone(data_frame)


def test_times_go_on_after_2038(data_frame, tmp_path):
    path = tmp_path / "it"
    later = data_frame._replace(at_ns=(2**32 - 1) * 10**9)
    path.write_bytes(pcap(later))
    assert read(path) == alone(later)


@pytest.mark.parametrize("file_format", ["pcap", "nsecpcap", "pcapng"])
def test_formats_that_editcap_writes(file_format, plain, expected, run_tool, tmp_path):
    run_tool(["editcap", "-F", file_format, plain, tmp_path / "it"])
    assert read(tmp_path / "it") == expected


def section(order="<"):
    return struct.pack(order + "IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)


def interface(link_type, order="<", resolution=None, offset_seconds=None, snap_length=0):
    options = b""
    if resolution is not None:
        options += struct.pack(order + "HHB3x", 9, 1, resolution)
    if offset_seconds is not None:
        options += struct.pack(order + "HHq", 14, 8, offset_seconds)
    if options:
        options += bytes(4)
    size = 20 + len(options)
    return (
        struct.pack(order + "IIHHI", 1, size, link_type, 0, snap_length)
        + options
        + struct.pack(order + "I", size)
    )


def packet(frame, interface_id=0, order="<", ticks_per_second=10**6, offset_seconds=0):
    ticks = (frame.at_ns - offset_seconds * 10**9) * ticks_per_second // 10**9
    data = frame.frame + bytes(-len(frame.frame) % 4)
    size = 32 + len(data)
    lengths = (interface_id, ticks >> 32, ticks & 0xFFFFFFFF, len(frame.frame), frame.wire_length)
    return struct.pack(order + "7I", 6, size, *lengths) + data + struct.pack(order + "I", size)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("resolution", "ticks_per_second"), [(None, 10**6), (6, 10**6), (9, 10**9), (0x9E, 2**30)]
)
def test_pcapng_in_both_byte_orders_and_its_resolutions(
    order, resolution, ticks_per_second, frames_of, tmp_path, tshark_segments
):
    path = tmp_path / "it"
    blocks = [section(order), interface(1, order, resolution)]
    blocks += [packet(f, 0, order, ticks_per_second) for f in frames_of("plain_single")]
    path.write_bytes(b"".join(blocks))
    to_the_microsecond = [s.replace(at_ns=s.at_ns // 1000 * 1000) for s in read(path)]
    assert to_the_microsecond == tshark_segments(path) != []


def without_payload(segments, **changes):
    return [segment.replace(payload=b"", **changes) for segment in segments]


def test_the_obsolete_block_with_a_frame(frames_of, tmp_path, expected):
    path = tmp_path / "it"
    blocks = [section(), interface(1)]
    for frame in frames_of("starttls_tls13"):
        block = packet(frame)
        blocks.append(struct.pack("<IIHH", 2, len(block), 0, 7) + block[12:])
    path.write_bytes(b"".join(blocks))
    assert read(path) == expected


def test_the_simple_block_has_no_time_and_ends_at_the_snap_length(frames_of, tmp_path, expected):
    path = tmp_path / "it"
    blocks = [section(), interface(1, snap_length=80)]
    for frame in frames_of("starttls_tls13"):
        data = frame.frame[:80] + bytes(-len(frame.frame[:80]) % 4)
        size = 16 + len(data)
        blocks.append(struct.pack("<III", 3, size, frame.wire_length) + data + struct.pack("<I", size))
    path.write_bytes(b"".join(blocks))
    found = read(path)
    assert without_payload(found) == without_payload(expected, at_ns=0)
    assert max(len(segment.payload) for segment in found) == 80 - 66  # behind Ethernet, IPv4, TCP with times


@pytest.mark.parametrize(
    "block",
    [
        struct.pack("<II5II", 6, 32, 1, 0, 0, 0, 60, 32),  # which is not described
        struct.pack("<IIII", 0x0BAD, 16, 0, 20),  # two lengths
        struct.pack("<IIII", 6, 16, 0, 16),  # too short for its fields
        struct.pack("<II5II", 6, 32, 0, 0, 0, 4, 4, 32),  # or for its frame
        struct.pack("<III", 1, 12, 12),
        struct.pack("<IIHHIHHI", 1, 24, 1, 0, 0, 9, 1, 24),  # an option without its value
        struct.pack("<II", 0x0BAD, 13),
        struct.pack("<II", 0x0BAD, 2**24 + 4),
        section()[:16] + b"\2" + section()[17:],  # no version of the format
        section()[:8] + b"\2" + section()[9:],
    ],
)
def test_damaged_blocks_end_the_file(block, frames_of, tmp_path):
    path = tmp_path / "it"
    first = packet(frames_of("plain_single")[0])
    path.write_bytes(section() + interface(1) + first + block + bytes(64))
    segments, message, _ = read_to_the_cut(path)
    assert len(segments) <= 1
    assert "after 1 packets" in message
    assert "damaged" in message or "version 2.0" in message


def as_sll(frame):
    head = b"\0\0\0\1\0\6" + frame.frame[6:12] + b"\0\0" + frame.frame[12:14]
    return frame._replace(link_type=113, frame=head + frame.frame[14:], wire_length=frame.wire_length + 2)


def mixed_blocks(frames):
    """Ethernet and Linux SLL in turn, with clocks of their own; described at the beginning."""
    yield section() + interface(1) + interface(113, resolution=9, offset_seconds=100)
    for number, frame in enumerate(frames):
        if number % 2:
            yield packet(as_sll(frame), 1, ticks_per_second=10**9, offset_seconds=100)
        else:
            yield packet(frame)


def test_interfaces_of_several_link_types(frames_of, tmp_path, expected, tshark_segments):
    path = tmp_path / "it"
    path.write_bytes(b"".join(mixed_blocks(frames_of("starttls_tls13"))))
    assert read(path) == expected == tshark_segments(path)


def late_blocks(frames):
    """The second interface is described after packets of the first."""
    half = len(frames) // 2
    yield section() + interface(1, snap_length=65_535)
    yield from (packet(frame) for frame in frames[:half])
    yield interface(113, snap_length=65_535)
    yield from (packet(as_sll(frame), 1) for frame in frames[half:])


def test_an_interface_described_late_repeats_and_loses_nothing(
    frames_of, tmp_path, expected, feed_standard_input
):
    path = tmp_path / "it"
    path.write_bytes(b"".join(late_blocks(frames_of("starttls_tls13"))))
    assert read(path) == expected
    gzipped = tmp_path / "it.gz"
    gzipped.write_bytes(gzip.compress(path.read_bytes()))
    assert read(gzipped) == expected
    feed_standard_input(path.read_bytes())
    assert read("-") == expected


def test_options_that_mean_nothing_to_us_do_no_harm(frames_of, tmp_path, expected):
    """Two comments and an IPv6 address of an interface; two comments of each packet."""
    path = tmp_path / "it"
    comment = struct.pack("<HH4s", 1, 4, b"here")
    options = comment * 2 + struct.pack("<HH17s3x", 5, 17, bytes(17)) + bytes(4)
    size = struct.pack("<I", 20 + len(options))
    described = struct.pack("<I", 1) + size + struct.pack("<HHI", 113, 0, 0) + options + size
    blocks = [section(), interface(1), described]
    for frame in frames_of("starttls_tls13"):
        block = packet(frame)
        size = struct.pack("<I", len(block) + 20)
        blocks.append(block[:4] + size + block[8:-4] + comment * 2 + bytes(4) + size)
    path.write_bytes(b"".join(blocks))
    assert read(path) == expected


def test_interfaces_of_several_snap_lengths(frames_of, tmp_path):
    path = tmp_path / "it"
    frames = frames_of("plain_single")
    blocks = [section(), interface(1, snap_length=65_535), interface(1, snap_length=96)]
    blocks += [packet(f, n % 2) for n, f in enumerate(frames)]
    path.write_bytes(b"".join(blocks))
    assert len(read(path)) == sum(1 for _ in read_frames_with_segments(frames))


def read_frames_with_segments(frames):
    return (f for f in frames if f.frame[12:14] in (b"\x08\0", b"\x86\xdd"))


@pytest.mark.parametrize("second_order", ["<", ">"])
@pytest.mark.parametrize("second_link_type", [1, 113])
def test_several_sections(second_order, second_link_type, frames_of, tmp_path, expected, tshark_segments):
    frames = frames_of("starttls_tls13")
    half = len(frames) // 2
    second = [as_sll(f) if second_link_type == 113 else f for f in frames[half:]]
    path = tmp_path / "it"
    blocks = [section(), interface(1), *(packet(f) for f in frames[:half]), section(second_order)]
    blocks += [interface(second_link_type, second_order), *(packet(f, 0, second_order) for f in second)]
    path.write_bytes(b"".join(blocks))
    assert read(path) == expected == tshark_segments(path)


def test_mergecap_joins_link_types_and_every_packet_is_read(capture, run_tool, tmp_path, tshark_segments):
    path = tmp_path / "merged"
    run_tool(["mergecap", "-w", path, capture("anydev_sll"), capture("plain_single"), capture("ipv6")])
    assert read(path) == tshark_segments(path) != []


# Compression and pipes


def compressed(kind, data):
    return {
        "gzip": lambda: gzip.compress(data),
        "gzip of several members": lambda: gzip.compress(data[:10_001]) + gzip.compress(data[10_001:]),
        "zstd": lambda: zstandard.compress(data),
        "zstd of several frames": lambda: zstandard.compress(data[:7]) + zstandard.compress(data[7:]),
        "zstd with a skippable frame": lambda: b"\x5a\x2a\x4d\x18\3\0\0\0abc" + zstandard.compress(data),
        "none": lambda: data,
    }[kind]()


COMPRESSIONS = [
    "gzip",
    "gzip of several members",
    "zstd",
    "zstd of several frames",
    "zstd with a skippable frame",
]


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_compressed_files_whatever_their_name(kind, plain, expected, tmp_path):
    path = tmp_path / "capture.pcap"
    path.write_bytes(compressed(kind, plain.read_bytes()))
    assert read(path) == expected


@pytest.fixture
def feed_standard_input(monkeypatch):
    """Makes bytes come out of descriptor 0, through a pipe, in pieces."""
    saved = os.dup(0)
    threads = []

    def feed(data, piece_bytes=1000):
        read_end, write_end = os.pipe()
        os.dup2(read_end, 0)
        os.close(read_end)

        def write():
            with os.fdopen(write_end, "wb", buffering=0) as pipe:
                for start in range(0, len(data), piece_bytes):
                    pipe.write(data[start : start + piece_bytes])

        thread = threading.Thread(target=write)
        thread.start()
        threads.append(thread)

    yield feed
    os.dup2(saved, 0)
    os.close(saved)
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()


@pytest.mark.parametrize("kind", [*COMPRESSIONS, "none"])
@pytest.mark.parametrize("file_format", ["pcap", "pcapng", "mixed pcapng"])
def test_standard_input(kind, file_format, plain, expected, frames_of, feed_standard_input):
    data = plain.read_bytes()
    if file_format == "pcapng":
        data = section() + interface(1) + b"".join(packet(f) for f in frames_of("starttls_tls13"))
    elif file_format == "mixed pcapng":
        data = b"".join(mixed_blocks(frames_of("starttls_tls13")))
    feed_standard_input(compressed(kind, data))
    assert read("-") == expected


@pytest.mark.parametrize("piece_bytes", [1, 23])
def test_a_pipe_may_bring_single_bytes(piece_bytes, capture, feed_standard_input):
    feed_standard_input(capture("plain_single").read_bytes(), piece_bytes)
    assert read("-") == read(capture("plain_single"))


def test_a_named_pipe_is_read_once(plain, expected, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes(plain.read_bytes()))
    writer.start()
    assert read(fifo) == expected
    writer.join()


# Several files


def test_several_files_are_one_capture(capture, tmp_path, tshark_segments):
    gzipped = tmp_path / "second"
    gzipped.write_bytes(gzip.compress(capture("anydev_sll").read_bytes()))
    paths = [capture("plain_single"), gzipped, capture("ipv6")]
    segments = read(*paths)
    assert segments == [
        s for name in ("plain_single", "anydev_sll", "ipv6") for s in tshark_segments(capture(name))
    ]


def test_more_files_than_descriptors(capture):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_descriptors() + 20, hard))
    try:
        assert len(read(*[capture("plain_single")] * 200)) == 200 * len(read(capture("plain_single")))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Cut and damaged files


def unfinished_zstd(data):
    frame = zstandard.ZstdCompressor().compressobj()
    return frame.compress(data) + frame.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)


def cut_variants(data):
    return {
        "pcap": data[:20_000],
        "pcap, in a packet's header": data[: 24 + 7],
        "gzip": gzip.compress(data)[:12_000],
        "zstd": zstandard.compress(data[:15_000]) + zstandard.compress(data[15_000:])[:9000],
        "gzip, but for its checksum": gzip.compress(data)[:-8],
        "zstd, but for its end": unfinished_zstd(data),
    }


@pytest.mark.parametrize("kind", list(cut_variants(b"x" * 99_999)))
def test_a_cut_file_gives_all_before_the_cut_and_what_follows_it(kind, plain, expected, tmp_path, capture):
    path = tmp_path / "cut.pcap"
    path.write_bytes(cut_variants(plain.read_bytes())[kind])
    segments, message, probe = read_to_the_cut(path, capture("plain_single"))
    following = read(capture("plain_single"))
    assert segments[-len(following) :] == following
    before = segments[: -len(following)]
    assert before == expected[: len(before)]
    if kind != "pcap, in a packet's header":
        assert before
    packets = probe.counts.seen.total() - len(following)
    assert message.startswith(f"{path}: ")
    assert f"cut short after {packets - other_packets(probe, capture)} packets" in message


def other_packets(probe, capture):
    """Of plain_single, what is no segment."""
    whole = CaptureFilesProbe([str(capture("plain_single"))], PORTS)
    list(whole.batches())
    return whole.counts.seen.total() - whole.counts.seen[Verdict.SEGMENT]


def test_a_cut_pcapng_of_several_link_types(frames_of, tmp_path, expected):
    path = tmp_path / "cut"
    whole = b"".join(mixed_blocks(frames_of("starttls_tls13")))
    for size in range(20_000, 20_050):
        path.write_bytes(whole[:size])
        segments, message, probe = read_to_the_cut(path)
        assert segments == expected[: len(segments)] != []
        assert f"after {probe.counts.seen.total()} packets" in message


def test_a_damaged_packet_length_ends_the_file(plain, tmp_path):
    data = bytearray(plain.read_bytes())
    data[24 + 8 : 24 + 12] = b"\xff\xff\xff\x7f"
    path = tmp_path / "damaged"
    path.write_bytes(data)
    segments, message, _ = read_to_the_cut(path)
    assert segments == []
    assert "damaged" in message
    # The same through a pipe whose writer still has much to write.
    path.write_bytes(gzip.compress(data + bytes(4_000_000)))
    assert "damaged" in read_to_the_cut(path)[1]


def test_a_time_that_no_calendar_knows_is_damage(frames_of, tmp_path):
    frame = frames_of("plain_single")[0]
    far = frame._replace(at_ns=10**12 * 10**9)
    path = tmp_path / "it"
    for second_interface in (b"", interface(113)):
        path.write_bytes(section() + interface(1, resolution=0) + second_interface + packet(far, 0, "<", 1))
        assert "damaged" in read_to_the_cut(path)[1]


def test_two_cut_files_are_both_named(plain, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(plain.read_bytes()[:5000])
    _, message, _ = read_to_the_cut(tmp_path / "one", tmp_path / "two")
    assert "/one: it is cut short" in message
    assert "/two: it is cut short" in message


# Compressed files that expand without an end


def zeros_of(kind, size):
    """`size` zeros, made compressed, so that nobody has to hold them."""
    if kind == "gzip":
        compressor = zlib.compressobj(wbits=31)
        made = [compressor.compress(bytes(2**20)) for _ in range(size // 2**20)]
        return b"".join((*made, compressor.flush()))
    # A block of one byte repeated (RFC 8878 section 3.1.1.2): 128 KiB of zeros in 4 bytes.
    block = (2**17 << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    return b"\x28\xb5\x2f\xfd\x00\x58" + block * (size // 2**17) + b"\1\0\0"


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_packets_without_end_are_left_after_what_came_before_them(kind, plain, expected, tmp_path):
    """Zeros are empty packets."""
    path = tmp_path / "it"
    path.write_bytes(compressed(kind, plain.read_bytes()) + zeros_of(kind, 2**27))
    segments, message, probe = read_to_the_cut(path)
    assert segments == expected
    assert "it has more than 16 packets for each of its bytes" in message
    assert message.endswith("unpack it on the way: zstd -dc FILE | smtp-horizon read -")
    assert probe.counts.seen.total() < 2 * PARTS_FREE + 16 * path.stat().st_size


@pytest.mark.parametrize("what", ["blocks", "options"])
def test_blocks_and_options_without_end_are_left(what, frames_of, tmp_path, expected):
    blocks = b"".join(mixed_blocks(frames_of("starttls_tls13")))
    if what == "blocks":
        more = struct.pack("<III", 77, 12, 12) * 1_000_000
    else:
        options = struct.pack("<HH", 77, 0) * 1_000_000
        size = 20 + len(options)
        more = struct.pack("<IIHHI", 1, size, 1, 0, 0) + options + struct.pack("<I", size)
    path = tmp_path / "it"
    path.write_bytes(zstandard.compress(blocks + more * 4 + blocks, 1))
    segments, message, _ = read_to_the_cut(path)
    assert segments == expected
    assert "for each of its bytes" in message
    # What is not compressed may be as it likes.
    path.write_bytes(blocks + more * 4 + blocks)
    assert read(path) == expected * 2


def test_bytes_without_end_are_left(plain, expected, tmp_path):
    """Few blocks, but 16 MB in each."""
    block = struct.pack("<II", 77, 2**24) + bytes(2**24 - 12) + struct.pack("<I", 2**24)
    blocks = [zstandard.compress(section() + interface(1)), *[zstandard.compress(block)] * 64]
    path = tmp_path / "it"
    path.write_bytes(b"".join(blocks))
    _, message, _ = read_to_the_cut(path)
    assert "it expands to more than 8,192 times its size" in message


def test_what_is_not_so_large_may_expand_as_it_likes(expected, plain, tmp_path):
    path = tmp_path / "it"
    path.write_bytes(compressed("zstd", plain.read_bytes()) + zeros_of("zstd", 2**23))
    assert read(path) == expected


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_no_piece_of_what_expands_is_large(kind, tmp_path):
    path = tmp_path / "it"
    path.write_bytes(zeros_of(kind, 2**26))
    with closing(OpenInput(str(path))) as opened, suppress(ExpandsTooMuch):
        for piece in opened.pieces:
            assert len(piece) <= 2**23


def test_a_window_of_gigabytes_is_refused(plain, tmp_path):
    path = tmp_path / "it"
    # RFC 8878 section 3.1.1.1.2: 2 GiB.
    path.write_bytes(b"\x28\xb5\x2f\xfd\x00" + bytes((21 << 3,)) + b"\1\0\0")
    with pytest.raises(
        CaptureFileError, match=r"it takes more than 128 MiB of memory .*; if it is a capture"
    ):
        read(path)


def with_gzip_header(data, name=b"", comment=b"", extra=b""):
    """RFC 1952 section 2.3."""
    packed = gzip.compress(data)
    flags = bool(extra) << 2 | bool(name) << 3 | bool(comment) << 4
    fields = struct.pack("<H", len(extra)) + extra if extra else b""
    fields += name + b"\0" if name else b""
    fields += comment + b"\0" if comment else b""
    return packed[:3] + bytes((flags,)) + packed[4:10] + fields + packed[10:]


def test_a_gzip_header_may_be_long(plain, expected, tmp_path):
    """Byte by byte, as Python's own gzip reads it, this takes 18 seconds."""
    path = tmp_path / "it"
    fields = {"name": b"n" * 3 * 10**7, "comment": b"c" * 1000, "extra": b"e" * 65_535}
    path.write_bytes(with_gzip_header(plain.read_bytes(), **fields))
    before = time.process_time()
    assert read(path) == expected
    assert time.process_time() - before < 5


def test_gzip_members_may_be_many_and_zeros_may_follow(plain, expected, tmp_path):
    data = plain.read_bytes()
    path = tmp_path / "it"
    members = [gzip.compress(data[at : at + 7]) + gzip.compress(b"") for at in range(0, len(data), 7)]
    path.write_bytes(b"".join(members) + bytes(100_000))
    assert read(path) == expected
    path.write_bytes(bytes(5).join(members))
    assert read(path) == expected


def test_what_follows_a_gzip_member_and_is_none_is_damage(plain, expected, tmp_path):
    path = tmp_path / "it"
    path.write_bytes(gzip.compress(plain.read_bytes()) + b"something else")
    segments, message, _ = read_to_the_cut(path)
    assert segments == expected
    assert "its gzip data is damaged" in message


# What can't be read


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (b"Hello, this is no capture at all, but a text.", "is no pcap or pcapng capture"),
        (
            gzip.compress(b"Hello, this is no capture at all, but a text.", mtime=0),
            "is no pcap or pcapng capture",
        ),
        (b"\xd4\xc3\xb2\xa1\2\0\4\0", "cut short in its header"),
        (b"\x0a\x0d\x0d\x0a\x1c\0\0\0", "cut short in its header"),
        (b"\xfd7zXZ\0" + bytes(100), "xz -dc"),
        (b"BZh91AY&SY" + bytes(100), "bzip2 -dc"),
        (b"\x1f\x8b\x08" + b"\xff" * 100, "gzip data is"),
        (b"\x28\xb5\x2f\xfd" + b"\xff" * 100, "zstd data is damaged"),
        (b"\xd4\xc3\xb2\xa1\x63\0\4\0" + bytes(16), "version"),
    ],
)
def test_what_is_no_capture_is_refused_in_one_line(content, says, tmp_path):
    path = tmp_path / "strange"
    path.write_bytes(content)
    before = open_descriptors()
    with pytest.raises(CaptureFileError) as caught:
        read(path)
    message = str(caught.value)
    assert says in message
    assert str(path) in message
    assert "\n" not in message
    assert open_descriptors() == before


def test_missing_files_and_directories_are_named(tmp_path):
    with pytest.raises(CaptureFileError, match=r"nowhere\.pcap does not exist; check"):
        read(tmp_path / "nowhere.pcap")
    with pytest.raises(CaptureFileError, match="is a directory; name the capture files in it"):
        read(tmp_path)


def test_a_name_with_strange_characters_stays_on_one_line(tmp_path, plain):
    with pytest.raises(CaptureFileError, match=r"new\\nline"):
        read(tmp_path / "new\nline")
    unprintable = os.fsencode(tmp_path) + b"/\xff\n.pcap"
    with open(unprintable, "wb") as file:
        file.write(plain.read_bytes())
    assert read(os.fsdecode(unprintable)) == read(plain)


def test_a_file_without_permission_is_named(tmp_path, plain):
    """As another user, for root may read everything."""
    path = tmp_path / "secret.pcap"
    path.write_bytes(plain.read_bytes())
    path.chmod(0)
    if os.geteuid() != 0:
        with pytest.raises(CaptureFileError, match="may not be read"):
            read(path)
        return
    os.chmod(tmp_path, 0o755)
    child = os.fork()
    if child == 0:
        os.setresuid(65534, 65534, 65534)
        try:
            CaptureFilesProbe([str(path)], PORTS)
        except CaptureFileError as error:
            # The directories above are pytest's, 0700: both the file and they refuse.
            os._exit(0 if "may not be read by this user" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_everything_is_looked_at_before_anything_is_read(plain, tmp_path):
    with pytest.raises(CaptureFileError):
        CaptureFilesProbe([str(plain), str(tmp_path / "nowhere")], PORTS)


def test_standard_input_is_read_once(plain):
    with pytest.raises(CaptureFileError, match="named twice"):
        CaptureFilesProbe(["-", str(plain), "-"], PORTS)


def test_a_file_that_goes_away_meanwhile_stops_nothing(plain, expected, tmp_path):
    path = tmp_path / "gone"
    path.write_bytes(plain.read_bytes())
    probe = CaptureFilesProbe([str(path), str(plain)], PORTS)
    path.unlink()
    segments = []
    with pytest.raises(CaptureInterrupted, match="gone: it can't be read any more"):  # noqa: PT012
        for batch in probe.batches():
            segments.extend(batch)
    assert segments == expected


# Progress, memory, tidiness


def test_progress_ends_at_the_size_of_the_files(plain, tmp_path, capture):
    gzipped = tmp_path / "it.gz"
    gzipped.write_bytes(gzip.compress(capture("interleaved").read_bytes()))
    seen = []
    probe = CaptureFilesProbe([str(plain), str(gzipped)], PORTS, progress=seen.append)
    batches = list(probe.batches())
    assert seen == sorted(seen)
    assert len(seen) == len(batches) > 5
    assert seen[-1] == probe.total_bytes == plain.stat().st_size + gzipped.stat().st_size
    assert max(map(len, batches)) <= 512


def test_a_pipe_has_no_total(capture, feed_standard_input):
    feed_standard_input(capture("plain_single").read_bytes())
    probe = CaptureFilesProbe(["-", str(capture("ipv6"))], PORTS)
    assert probe.total_bytes is None
    list(probe.batches())


@pytest.mark.parametrize("kind", ["none", "gzip", "zstd"])
def test_closing_early_leaves_no_thread_and_no_descriptor(kind, capture, tmp_path):
    path = tmp_path / "big"
    path.write_bytes(compressed(kind, capture("interleaved").read_bytes()))
    descriptors, threads = open_descriptors(), threading.active_count()
    for _ in range(5):
        probe = CaptureFilesProbe([str(path), str(path)], PORTS)
        batches = probe.batches()
        assert next(batches)
        probe.close()
        batches.close()
        probe.close()
    assert (open_descriptors(), threading.active_count()) == (descriptors, threads)


def test_closing_does_not_wait_for_standard_input(feed_standard_input, capture):
    read_end, write_end = os.pipe()
    os.dup2(read_end, 0)
    os.close(read_end)
    os.write(write_end, capture("plain_single").read_bytes())
    descriptors, threads = open_descriptors(), threading.active_count()
    probe = CaptureFilesProbe(["-"], PORTS)
    probe.close()
    assert (open_descriptors(), threading.active_count()) == (descriptors, threads)
    os.close(write_end)


def test_memory_does_not_grow_with_the_file(capture, tmp_path):
    """A compressed file of 200 MB, most of it one packet over and over, read in a process of its own."""
    data = capture("interleaved").read_bytes()
    path = tmp_path / "long.zst"
    with path.open("wb") as file, zstandard.ZstdCompressor().stream_writer(file) as packed:
        packed.write(data[:24])
        for _ in range(50):
            packed.write(data[24:])
    program = (
        "import resource, sys; from probes.pcap.files import CaptureFilesProbe\n"
        "probe = CaptureFilesProbe([sys.argv[1]], frozenset((25,)))\n"
        "batches = probe.batches(); [next(batches) for _ in range(20)]\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for _ in batches: pass\n"
        "print(probe.counts.seen.total(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    root = Path(__file__).parents[2]
    output = subprocess.run(
        [sys.executable, "-c", program, path], check=True, capture_output=True, text=True, cwd=root
    ).stdout
    packets, grown_kilobytes = map(int, output.split())
    assert packets > 200_000
    assert grown_kilobytes < 20_000


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["pcap", "pcapng", "mixed pcapng"]),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=5),
    cut=st.integers(0, 3000),
    pack=st.booleans(),
)
def test_no_damage_raises_anything_but_one_line(kind, changes, cut, pack, frames_of, capture, tmp_path):
    frames = frames_of("plain_single")[:12]
    if kind == "pcap":
        data = capture("plain_single").read_bytes()
    elif kind == "pcapng":
        data = section() + interface(1, resolution=9, offset_seconds=0) + b"".join(packet(f) for f in frames)
    else:
        data = b"".join(mixed_blocks(frames))
    damaged = bytearray(data[:cut])
    for position, value in changes:
        if position < len(damaged):
            damaged[position] = value
    path = tmp_path / "damaged"
    path.write_bytes(gzip.compress(damaged) if pack else damaged)
    message = ""
    try:
        read(path)
    except ProbeError as error:
        message = str(error)
    assert "\n" not in message


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["pcap", "nanoseconds", "big-endian", "pcapng"]),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=3),
    cut=st.integers(100, 3000),
)
@example(kind="pcapng", changes=[(24, 0)], cut=320)  # the second length of the section header
def test_a_damaged_file_gives_what_it_gives_to_libpcap(kind, changes, cut, frames_of, write_pcap, tmp_path):
    """And of pcapng files at times more, as libpcap refuses some that are right."""
    path = tmp_path / "damaged"
    frames = frames_of("plain_single")[:12]
    if kind == "pcapng":
        path.write_bytes(section() + interface(1, resolution=9) + b"".join(packet(f) for f in frames))
    else:
        order = ">" if kind == "big-endian" else "<"
        write_pcap(path, frames, order=order, nanoseconds=kind == "nanoseconds")
    damaged = bytearray(path.read_bytes()[:cut])
    for position, value in changes:
        if position < len(damaged):
            damaged[position] = value
    path.write_bytes(damaged)
    theirs = by_libpcap(path)
    ours, is_whole = [], True
    try:
        for batch in CaptureFilesProbe([str(path)], PORTS).batches():
            ours.extend(segment.replace(at_ns=0) for segment in batch)
    except ProbeError:
        is_whole = False
    if theirs is None:
        assert kind == "pcapng" or not is_whole
    elif theirs[1] or kind != "pcapng":
        assert (ours, is_whole) == theirs
    else:
        assert ours[: len(theirs[0])] == theirs[0]
