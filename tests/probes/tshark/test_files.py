"""Capture files of all kinds through `--probe pyshark`, whole, cut, damaged, and in bad company.

tshark takes most of a second to start, so files that differ only in their dress are read as one capture.
"""

import contextlib
import gc
import gzip
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from shutil import which
from typing import IO

import psutil
import pytest
import zstandard

from probes import isolation
from probes.pcap import opening
from probes.pcap.files import CaptureFilesProbe
from probes.probe import CaptureFileError, CaptureInterrupted, Probe, ProbeUnavailable
from probes.segment import Segment
from probes.tshark import dissector
from probes.tshark.probe import TsharkFilesProbe
from tests.probes.tshark.packets import (
    Frame,
    enhanced_packet,
    ethernet,
    fragments,
    interface,
    ipv4,
    pcap,
    pcapng,
    section,
    tcp,
    whole,
)
from tests.probes.tshark.stand_ins import in_place_of, look_first_in
from tests.segments import PORTS, capture_path, segments_of

pytestmark = pytest.mark.thorough

PROGRAM = str(Path(sys.executable).with_name("smtp-horizon"))
ROOT = Path(__file__).parents[3]
PLAIN = capture_path("starttls_tls13")

# Long enough for the busiest machine: nothing here is measured.
PATIENCE_SECONDS = 60


def frames_of(path: Path) -> list[Frame]:
    """Of a pcap file as tcpdump writes it here: little endian, microseconds."""
    data = path.read_bytes()
    (link_type,) = struct.unpack_from("<I", data, 20)
    frames = []
    start = 24
    while start < len(data):
        seconds, microseconds, size, wire_length = struct.unpack_from("<IIII", data, start)
        frame = data[start + 16 : start + 16 + size]
        frames.append(Frame(frame, wire_length, link_type, seconds * 10**9 + microseconds * 1000))
        start += 16 + size
    return frames


def read_all(probe: Probe) -> list[Segment]:
    try:
        return [segment for batch in probe.batches() for segment in batch]
    finally:
        probe.close()


def read(*paths: Path | str) -> list[Segment]:
    return read_all(TsharkFilesProbe([str(path) for path in paths], PORTS))


def read_to_the_cut(probe: Probe) -> tuple[list[Segment], str]:
    """Segments, and the message of the CaptureInterrupted that must come after them."""
    segments: list[Segment] = []
    try:
        with pytest.raises(CaptureInterrupted) as caught:  # noqa: PT012 - what came before is wanted too
            for batch in probe.batches():
                segments += batch
    finally:
        probe.close()
    return segments, str(caught.value)


def slices(segments: Sequence[Segment], size: int) -> list[Sequence[Segment]]:
    return [segments[start : start + size] for start in range(0, len(segments), size)]


@pytest.fixture(scope="module")
def expected() -> list[Segment]:
    return segments_of("starttls_tls13")


# Formats


def as_sll(frame: Frame) -> Frame:
    head = bytes.fromhex("000000010006") + frame.data[6:12] + bytes(2) + frame.data[12:14]
    return frame._replace(link_type=113, data=head + frame.data[14:], wire_length=frame.wire_length + 2)


def several_sections(frames: Sequence[Frame]) -> bytes:
    """The second in the other byte order, with times of its own."""
    half = len(frames) // 2
    return pcapng(frames[:half]) + pcapng(frames[half:], ">")


def late_interface(frames: Sequence[Frame]) -> bytes:
    half = len(frames) // 2
    blocks = [section(), interface(1, snap_length=65_535)]
    blocks += [enhanced_packet(f.at_ns or 0, f.data, f.wire_length) for f in frames[:half]]
    blocks.append(interface(113, snap_length=96))
    blocks += [enhanced_packet(f.at_ns or 0, f.data, f.wire_length, 1) for f in map(as_sll, frames[half:])]
    return b"".join(blocks)


def commented(frames: Sequence[Frame]) -> bytes:
    comment = struct.pack("=HH4s", 1, 4, b"here") * 2 + bytes(4)
    blocks = [section(), interface(1, name=b"eth0")]
    blocks += [enhanced_packet(f.at_ns or 0, f.data, f.wire_length, options=comment) for f in frames]
    return b"".join(blocks)


def skippable(data: bytes) -> bytes:
    return b"\x5a\x2a\x4d\x18\3\0\0\0abc" + zstandard.compress(data)


FRAMES = frames_of(PLAIN)
MIXED = [as_sll(frame) if number % 2 else frame for number, frame in enumerate(FRAMES)]
KINDS: dict[str, Callable[[], bytes]] = {
    "pcap": PLAIN.read_bytes,
    "pcap, big endian": lambda: pcap(FRAMES, ">"),
    "pcap, nanoseconds": lambda: pcap(FRAMES, is_nano=True),
    "pcap, nanoseconds, big endian": lambda: pcap(FRAMES, ">", is_nano=True),
    "pcapng": lambda: pcapng(FRAMES),
    "pcapng, big endian": lambda: pcapng(FRAMES, ">"),
    "pcapng of two link types": lambda: pcapng(MIXED),
    "pcapng of two sections": lambda: several_sections(FRAMES),
    "pcapng with an interface described late": lambda: late_interface(FRAMES),
    "pcapng with comments": lambda: commented(FRAMES),
    "gzip": lambda: gzip.compress(PLAIN.read_bytes()),
    "gzip of two members": lambda: (
        gzip.compress(PLAIN.read_bytes()[:10_001]) + gzip.compress(PLAIN.read_bytes()[10_001:])
    ),
    "zstd": lambda: zstandard.compress(PLAIN.read_bytes()),
    "zstd of two frames": lambda: (
        zstandard.compress(PLAIN.read_bytes()[:7]) + zstandard.compress(PLAIN.read_bytes()[7:])
    ),
    "zstd with a skippable frame": lambda: skippable(PLAIN.read_bytes()),
    "gzip of a pcapng of two link types": lambda: gzip.compress(pcapng(MIXED)),
    "zstd of a pcapng with an interface described late": lambda: zstandard.compress(late_interface(FRAMES)),
}


@pytest.fixture(scope="module")
def of_each_kind(
    tmp_path_factory: pytest.TempPathFactory, expected: list[Segment]
) -> dict[str, Sequence[Segment]]:
    """Each file is named for nothing that is in it."""
    folder = tmp_path_factory.mktemp("kinds")
    paths = []
    for number, make in enumerate(KINDS.values()):
        path = folder / f"{number}.txt"
        path.write_bytes(make())
        paths.append(path)
    return dict(zip(KINDS, slices(read(*paths), len(expected)), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_every_kind_give_the_same_segments(
    kind: str, of_each_kind: dict[str, Sequence[Segment]], expected: list[Segment]
) -> None:
    assert of_each_kind[kind] == expected


def test_nanoseconds_are_kept(tmp_path: Path) -> None:
    frame = whole(ethernet(ipv4(tcp())))._replace(at_ns=1_764_000_000_123_456_789)
    (tmp_path / "one").write_bytes(pcap([frame], is_nano=True))
    (tmp_path / "two").write_bytes(pcapng([frame]))
    assert [segment.at_ns for segment in read(tmp_path / "one", tmp_path / "two")] == [frame.at_ns] * 2


# What `editcap -F` writes of Ethernet frames, and the nanoseconds that its times may be off.
EXACT = 0
FORMATS = {
    "pcap": EXACT,
    "nsecpcap": EXACT,
    "pcapng": EXACT,
    "modpcap": EXACT,
    "nokiapcap": EXACT,
    "rh6_1pcap": EXACT,
    "suse6_3pcap": EXACT,
    "5views": EXACT,
    "snoop": EXACT,
    "netmon1": 10**6,
    "netmon2": EXACT,
    "ngsniffer": 1000,
    "ngwsniffer_1_1": EXACT,
    "ngwsniffer_2_0": EXACT,
    "lanalyzer": 24 * 3600 * 10**9,
    "visual": 10**6,
}
# These hold a link type for each packet and none for the file, which editcap can't write as pcapng.
LINK_TYPE_PER_PACKET = ("commview-ncf", "commview-ncfx", "k12text", "nettl")


@pytest.fixture(scope="module")
def of_each_format(
    tmp_path_factory: pytest.TempPathFactory, expected: list[Segment]
) -> dict[str, Sequence[Segment]]:
    folder = tmp_path_factory.mktemp("formats")
    for name in FORMATS:
        subprocess.run(["editcap", "-F", name, PLAIN, folder / name], check=True)
    segments = read(*(folder / name for name in FORMATS))
    return dict(zip(FORMATS, slices(segments, len(expected)), strict=True))


@pytest.mark.parametrize("name", FORMATS)
def test_formats_of_other_programs_give_the_same_segments(
    name: str, of_each_format: dict[str, Sequence[Segment]], expected: list[Segment]
) -> None:
    segments = of_each_format[name]
    assert [one.replace(at_ns=0) for one in segments] == [one.replace(at_ns=0) for one in expected]
    assert (
        max(abs(one.at_ns - other.at_ns) for one, other in zip(segments, expected, strict=True))
        <= FORMATS[name]
    )


@pytest.mark.parametrize("name", LINK_TYPE_PER_PACKET)
def test_a_format_that_can_t_become_pcapng_is_refused_with_a_way_out(
    name: str, tmp_path: Path, expected: list[Segment]
) -> None:
    path = tmp_path / "it"
    subprocess.run(["editcap", "-F", name, PLAIN, path], check=True)
    with pytest.raises(CaptureFileError, match=r"editcap -T ether FILE - \|"):
        TsharkFilesProbe([str(path)], PORTS)
    if name != LINK_TYPE_PER_PACKET[0]:  # the way out is the same
        return
    converted = subprocess.run(["editcap", "-T", "ether", path, tmp_path / "mended"], check=True)
    assert converted.returncode == 0
    segments = read(tmp_path / "mended")
    assert [segment.payload for segment in segments] == [segment.payload for segment in expected]


def test_every_format_that_editcap_writes_of_ethernet_is_known_here(tmp_path: Path) -> None:
    """Wireshark 4.0's; a later one that knows more adds to the table."""
    said = subprocess.run(["editcap", "-F"], capture_output=True, text=True, check=False)
    offered = [line.split()[0] for line in (said.stdout + said.stderr).splitlines() if " - " in line]
    written = {
        name
        for name in offered
        if subprocess.run(
            ["editcap", "-F", name, PLAIN, tmp_path / "it"], capture_output=True, check=False
        ).returncode
        == 0
    }
    # What editcap writes as Observer, it does not read.
    assert written - {"observer"} == {*FORMATS, *LINK_TYPE_PER_PACKET}


# Several files, and their names


def test_a_session_may_span_two_files_and_a_file_may_come_twice(
    tmp_path: Path, expected: list[Segment]
) -> None:
    half = len(FRAMES) // 2
    (tmp_path / "first").write_bytes(pcap(FRAMES[:half]))
    (tmp_path / "second").write_bytes(gzip.compress(pcapng(FRAMES[half:])))
    assert read(tmp_path / "first", tmp_path / "second", PLAIN, PLAIN) == expected * 3


def test_a_name_may_hold_anything(
    tmp_path: Path, expected: list[Segment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [
        b"-r",
        b"-F",
        b"-",
        b"new\nline",
        b'quo"te',
        b"\xff\xfe",
        b" ",
        b"100%s",
        b"$(id)",
        b"caf\xc3\xa9",
    ]
    paths = []
    for name in names:
        Path(os.fsdecode(name)).write_bytes(PLAIN.read_bytes())
        paths.append(os.fsdecode(name) if name != b"-" else "./-")
    assert read(*paths) == expected * len(names)


# The program itself


def run(
    *arguments: str | Path, prefix: Sequence[str | Path] = (), **options: object
) -> subprocess.CompletedProcess[bytes]:
    command = [*prefix, PROGRAM, "read", *arguments]
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        command, capture_output=True, check=False, timeout=PATIENCE_SECONDS, **options
    )


def records(*arguments: str | Path, probe: str = "pcap", **options: object) -> bytes:
    done = run("--probe", probe, "--format", "jsonl", *arguments, prefix=(), **options)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


@contextlib.contextmanager
def running(*arguments: str | Path, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """With a process group of its own, as a shell would give it."""
    command = [PROGRAM, "read", "--probe", "pyshark", "--format", "jsonl", *arguments]
    with subprocess.Popen(  # type: ignore[call-overload]
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **options
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def helpers_of(pid: int, names: Sequence[str]) -> list[psutil.Process]:
    """Its children of these names, once they are all there."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(psutil.NoSuchProcess):
            found = [child for child in psutil.Process(pid).children(recursive=True) if child.name() in names]
            if {child.name() for child in found} == set(names):
                return found
        time.sleep(0.02)
    raise AssertionError(f"{names} were not started")


def assert_gone(processes: Sequence[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, PATIENCE_SECONDS)
    assert not alive


def test_standard_input_whatever_it_is_compressed_with() -> None:
    expected_records = records(PLAIN)
    assert expected_records
    for data in (gzip.compress(pcapng(MIXED)), zstandard.compress(PLAIN.read_bytes())):
        assert records("-", probe="pyshark", input=data) == expected_records


def test_a_pipe_may_bring_a_few_bytes_at_a_time() -> None:
    data = capture_path("plain_single").read_bytes()
    with running("-", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for start in range(0, len(data), 7):
            process.stdin.write(data[start : start + 7])
            process.stdin.flush()
        said, complaint = process.communicate(timeout=PATIENCE_SECONDS)
        assert (process.returncode, complaint) == (0, b"")
        assert said == records(capture_path("plain_single"))


def _fill(pipe: IO[bytes]) -> None:
    """A capture that has begun, and goes on."""
    pipe.write(PLAIN.read_bytes()[:30_000])
    pipe.flush()


def test_ctrl_c_ends_a_long_read_at_once_and_leaves_nothing_behind() -> None:
    with running("-", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        _fill(process.stdin)
        helpers = helpers_of(process.pid, ("editcap", "tshark"))
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE_SECONDS) == 1
        # An empty line first, for the terminal has shown ^C.
        assert process.stderr.read() == b"\nError: interrupted\n"
        assert_gone(helpers)


def test_who_is_killed_leaves_nothing_behind() -> None:
    with running("-", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        _fill(process.stdin)
        helpers = helpers_of(process.pid, ("editcap", "tshark"))
        process.kill()
        process.wait()
        assert_gone(helpers)


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    """As `| head` is one."""
    long = tmp_path / "long"
    long.write_bytes(capture_path("interleaved").read_bytes())
    with running(*[long] * 4) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        helpers = psutil.Process(process.pid).children(recursive=True)
        process.stdout.close()
        assert process.wait(PATIENCE_SECONDS) == 0
        assert process.stderr.read() == b""
        assert_gone(helpers)


# Cut and damaged files


def cut_files(folder: Path) -> list[Path]:
    plain, several = PLAIN.read_bytes(), pcapng(MIXED)
    files = {
        "in a packet": plain[:20_000],
        "in a packet's header": plain[: 24 + 7],
        "pcapng": several[:20_000],
        "pcapng, in a block's length": pcapng(FRAMES)[: 28 + 36 + 5],
        "pcap.gz": gzip.compress(plain)[:12_000],
        "pcap.gz, but for its checksum": gzip.compress(plain)[:-8],
        "pcapng.gz": gzip.compress(several)[:12_000],
        "pcap.zst": zstandard.compress(plain[:15_000]) + zstandard.compress(plain[15_000:])[:9_000],
        "pcapng.zst": zstandard.compress(several[:15_000]) + zstandard.compress(several[15_000:])[:9_000],
        "whole": plain,
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]


def test_cut_files_give_all_before_the_cut_and_what_follows_them(tmp_path: Path) -> None:
    paths = [str(path) for path in cut_files(tmp_path)]
    segments, message = read_to_the_cut(TsharkFilesProbe(paths, PORTS))
    expected, pcap_message = read_to_the_cut(CaptureFilesProbe(paths, PORTS))
    assert segments == expected
    assert "\n" not in message
    *cut, rest = message.split("; ", len(paths) - 1)
    *pcap_cut, pcap_rest = pcap_message.split("; ", len(paths) - 1)
    assert rest == pcap_rest
    for one, other, path in zip(cut, pcap_cut, paths, strict=False):
        assert one.startswith(f"{path}: it")
        assert "cut short" in one
        # " after 12 packets": as many as the pcap probe read.
        assert one.rpartition(" after ")[2] == other.rpartition(" after ")[2]
    assert len(cut) == len(paths) - 1


def test_a_cut_file_gives_its_records_a_warning_and_status_1(tmp_path: Path) -> None:
    cut = tmp_path / 'new\n"line"'
    cut.write_bytes(PLAIN.read_bytes()[:20_000])
    done = run("--probe", "pyshark", "--format", "jsonl", cut)
    by_pcap = run("--probe", "pcap", "--format", "jsonl", cut)
    assert (done.returncode, by_pcap.returncode) == (1, 1)
    assert done.stdout == by_pcap.stdout != b""
    assert done.stderr.startswith(b"Warning: ")
    assert done.stderr.count(b"\n") == 1
    assert b'"line"\': it appears to have been cut short in the middle of a packet after ' in done.stderr


def test_an_editcap_that_dies_is_a_file_that_ended_too_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing when it is killed, as when memory is short."""
    script = tmp_path / "editcap"
    script.write_text(
        f'#!/bin/sh\n[ "$1" = -r ] && exec {which("editcap")} "$@"\n{which("editcap")} "$@"\nkill -9 $$\n'
    )
    script.chmod(0o755)
    look_first_in(tmp_path, monkeypatch)
    segments, message = read_to_the_cut(TsharkFilesProbe([str(PLAIN)], PORTS))
    assert segments == segments_of("starttls_tls13")
    assert "editcap ended with status -9 after" in message


def test_an_editcap_that_goes_away_meanwhile_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _program(tmp_path, "editcap", f'exec {which("editcap")} "$@"')
    zipped = tmp_path / "it.gz"
    zipped.write_bytes(gzip.compress(PLAIN.read_bytes()))
    before = left_over()
    with monkeypatch.context() as patch:
        look_first_in(tmp_path, patch)
        probe = TsharkFilesProbe([str(zipped)], PORTS)
    (tmp_path / "editcap").unlink()
    segments, message = read_to_the_cut(probe)
    assert segments == []
    assert "it.gz: editcap can't be started any more (No such file or directory) after 0 packets" in message
    assert left_over() == before


def test_a_file_that_goes_away_meanwhile_stops_nothing(tmp_path: Path, expected: list[Segment]) -> None:
    path = tmp_path / "gone"
    path.write_bytes(PLAIN.read_bytes())
    probe = TsharkFilesProbe([str(path), str(PLAIN)], PORTS)
    path.unlink()
    segments, message = read_to_the_cut(probe)
    assert segments == expected
    assert f"{path}: it can't be read any more" in message


# What can't be read

TEXT = b"Hello, this is no capture at all, but a text. " * 3


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (TEXT, "is no capture in a format that Wireshark knows"),
        (gzip.compress(TEXT, mtime=0), "is no capture in a format that Wireshark knows"),
        (zstandard.compress(TEXT), "is no capture in a format that Wireshark knows"),
        (PLAIN.read_bytes()[:20], "cut short"),
        (b"\x1f\x8b\x08" + b"\xff" * 100, "gzip data is"),
        (b"\x28\xb5\x2f\xfd" + b"\xff" * 100, "zstd data is damaged"),
        (pcap([whole(b"x" * 60, 999)]), "network type 999"),
    ],
    ids=[
        *("nothing", "gzip of nothing", "text", "gzip of text", "zstd of text"),
        *("a header cut short", "damaged gzip", "damaged zstd", "an unknown link type"),
    ],
)
def test_what_is_no_capture_is_refused_in_one_line_before_anything_is_read(
    content: bytes, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "strange"
    path.write_bytes(content)
    before = open_descriptors()
    with pytest.raises(CaptureFileError) as caught:
        TsharkFilesProbe([str(PLAIN), str(path)], PORTS)
    message = str(caught.value)
    assert says in message
    assert message.startswith(str(path))
    assert "\n" not in message
    assert open_descriptors() == before


def test_missing_files_and_directories_are_named(tmp_path: Path) -> None:
    with pytest.raises(CaptureFileError, match=r"nowhere\.pcap does not exist; check"):
        TsharkFilesProbe([str(tmp_path / "nowhere.pcap")], PORTS)
    with pytest.raises(CaptureFileError, match="is a directory; name the capture files in it"):
        TsharkFilesProbe([str(tmp_path)], PORTS)
    with pytest.raises(CaptureFileError, match="named twice"):
        TsharkFilesProbe(["-", str(PLAIN), "-"], PORTS)


def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    """As another user, for root may read everything."""
    path = tmp_path / "secret.pcap"
    path.write_bytes(PLAIN.read_bytes())
    path.chmod(0)
    if os.geteuid() != 0:
        with pytest.raises(CaptureFileError, match="may not be read by this user"):
            TsharkFilesProbe([str(path)], PORTS)
        return
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setresuid(65534, 65534, 65534)
            TsharkFilesProbe([str(path)], PORTS)
        except CaptureFileError as error:
            status = 0 if "may not be read by this user" in str(error) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(
    "content",
    [TEXT, b"", gzip.compress(TEXT, mtime=0)[:30]],
    ids=["text", "nothing", "gzip cut short"],
)
def test_standard_input_that_is_no_capture_is_one_line_and_status_2(content: bytes) -> None:
    done = run("--probe", "pyshark", "-", input=content)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"Error: standard input ")
    assert done.stderr.count(b"\n") == 1


def test_one_bad_file_among_good_ones_is_one_line_and_status_2(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(TEXT)
    done = run("--probe", "pyshark", PLAIN, text)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(f"Error: {text} is no capture".encode())
    assert done.stderr.count(b"\n") == 1


def test_packets_without_end_are_left_after_what_came_before_them(
    tmp_path: Path, expected: list[Segment], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zeros are empty packets. The bound has a million more, for which tshark would take minutes."""
    monkeypatch.setattr(opening, "PARTS_FREE", 10_000)
    path = tmp_path / "it"
    path.write_bytes(zstandard.compress(PLAIN.read_bytes()) + zstandard.compress(bytes(2**25)))
    segments, message = read_to_the_cut(TsharkFilesProbe([str(path)], PORTS))
    assert segments == expected
    assert f"{path}: it has more than 16 packets for each of its bytes" in message


def test_damage_is_one_line_and_what_comes_before_it_is_read(tmp_path: Path, expected: list[Segment]) -> None:
    # The captured length of the 31st packet, and in pcapng its block's.
    in_pcap, in_pcapng = len(pcap(FRAMES[:30])) + 8, len(pcapng(FRAMES[:30])) + 4
    members = gzip.compress(pcap(FRAMES)[:20_000]) + gzip.compress(pcap(FRAMES)[20_000:])
    files = {
        "pcap": (pcap(FRAMES), in_pcap),
        "pcapng": (pcapng(FRAMES), in_pcapng),
        "pcapng.zst": (pcapng(FRAMES), in_pcapng),
        "gz": (members, len(members) - 4_000),
    }
    paths = []
    for name, (data, position) in files.items():
        damaged = data[:position] + b"\xff\xff\xff\x7f" + data[position + 4 :]
        paths.append(tmp_path / name)
        paths[-1].write_bytes(zstandard.compress(damaged) if name.endswith(".zst") else damaged)
    segments, message = read_to_the_cut(TsharkFilesProbe([str(path) for path in (*paths, PLAIN)], PORTS))
    assert "\n" not in message
    for path in paths:
        assert f"{path}: it" in message
    assert segments[-len(expected) :] == expected
    before = read_all(CaptureFilesProbe([str(PLAIN)], PORTS))[:20]
    for _ in paths:
        assert segments[:20] == before
        del segments[: segments.index(before[0], 1)]


def test_sections_that_editcap_can_t_join_are_said_with_the_way_out(
    tmp_path: Path, expected: list[Segment]
) -> None:
    path = tmp_path / "it"
    half = len(FRAMES) // 2
    path.write_bytes(pcapng(FRAMES[:half]) + pcapng([as_sll(frame) for frame in FRAMES[half:]]))
    segments, message = read_to_the_cut(TsharkFilesProbe([str(path)], PORTS))
    assert segments == expected[: len(segments)]
    assert "it has sections of several link types, which editcap can't join: take --probe pcap; " in message
    assert read_all(CaptureFilesProbe([str(path)], PORTS)) == expected


# Programs and surroundings


def _program(folder: Path, name: str, text: str) -> None:
    script = folder / name
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o755)


@pytest.mark.parametrize(
    ("programs", "says"),
    [
        ({}, "tshark is not installed; apt-get install tshark"),
        ({"tshark": ""}, "editcap is not installed; apt-get install tshark"),
        ({"editcap": ""}, "tshark is not installed; apt-get install tshark"),
        (
            {"tshark": 'echo "TShark (Wireshark) 2.6.20 (Git v2.6.20)"'},
            "is version 2.6.20, and 4.0 is the oldest",
        ),
        ({"tshark": 'echo "TShark (Wireshark) 3.10.1"'}, "is version 3.10.1, and 4.0 is the oldest"),
        ({"tshark": "echo hello"}, "tshark does not run (no version); reinstall it"),
        (
            {"tshark": "echo cannot open shared object >&2; exit 127"},
            "(cannot open shared object); reinstall it",
        ),
    ],
)
def test_programs_that_are_missing_or_too_old_are_said_with_the_remedy(
    programs: dict[str, str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty script stands for the real program."""
    for name, text in programs.items():
        _program(tmp_path, name, text or f'exec {which(name)} "$@"')
    monkeypatch.setattr(isolation, "PATH", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProbeUnavailable) as caught:
        TsharkFilesProbe([str(PLAIN)], PORTS)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tshark_that_is_too_old_is_one_line_and_status_2(tmp_path: Path) -> None:
    _program(tmp_path, "tshark", 'echo "TShark (Wireshark) 2.6.20 (Git v2.6.20)"')
    done = run("--probe", "pyshark", PLAIN, prefix=in_place_of(which("tshark") or "", tmp_path / "tshark"))
    assert (done.returncode, done.stdout) == (2, b"")
    assert (
        done.stderr
        == (
            f"Error: {which('tshark')} is version 2.6.20, and 4.0 is the oldest that the pyshark probe "
            "understands; install a newer one\n"
        ).encode()
    )


@pytest.fixture
def hostile_home(tmp_path: Path) -> Path:
    """Of a user who has set Wireshark up in another way; a script of his prints between the rows."""
    configuration = tmp_path / ".config" / "wireshark"
    plugins = tmp_path / ".local" / "lib" / "wireshark" / "plugins"
    for folder in (configuration, plugins):
        folder.mkdir(parents=True)
    preferences = (
        "ip.defragment: FALSE\nipv6.defragment: FALSE\ntcp.check_checksum: TRUE\nip.tso_support: FALSE\n"
    )
    (configuration / "preferences").write_text(preferences)
    (configuration / "disabled_protos").write_text("tcp\n")
    (plugins / "hostile.lua").write_text('print("hostile")\nio.stderr:write("hostile\\n")\n')
    return tmp_path


def test_a_user_s_own_settings_and_a_config_ini_change_nothing(hostile_home: Path) -> None:
    (hostile_home / "config.ini").write_text(
        "[tshark]\ntshark_path = /bin/false\n[dumpcap]\ndumpcap_path = /x\n"
    )
    capture = hostile_home / "it.pcap"
    frames = FRAMES + fragments(ipv4(tcp(b"QUIT\r\n" * 9), destination=ipv4(b"")[16:20]), 24)
    capture.write_bytes(pcap(frames))
    surroundings = {
        **os.environ,
        "HOME": str(hostile_home),
        "WIRESHARK_CONFIG_DIR": str(hostile_home / ".config" / "wireshark"),
        "XDG_CONFIG_HOME": str(hostile_home / ".config"),
        "WIRESHARK_LOG_LEVEL": "noisy",
    }
    # They do work.
    said = subprocess.run(
        ["tshark", "-n", "-r", capture, "-Y", "tcp"], env=surroundings, capture_output=True, check=False
    )
    assert said.stdout == b"hostile\n"
    hostile = records(capture, probe="pyshark", env=surroundings, cwd=hostile_home)
    assert hostile == records(capture) != b""


# Tidiness


def open_descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def left_over() -> tuple[int, int, int]:
    children = psutil.Process().children(recursive=True)
    return open_descriptors(), threading.active_count(), len(children)


@pytest.fixture
def endless_pipe() -> Iterator[str]:
    """A named pipe that has brought the beginning of a capture, and whose writer goes on waiting."""
    read_end, write_end = os.pipe()
    saved = os.dup(0)
    os.dup2(read_end, 0)
    os.close(read_end)
    os.write(write_end, PLAIN.read_bytes()[:30_000])
    yield "-"
    os.dup2(saved, 0)
    os.close(saved)
    os.close(write_end)


def test_a_probe_that_is_closed_at_any_time_leaves_nothing_behind(tmp_path: Path) -> None:
    zipped = tmp_path / "it.gz"
    zipped.write_bytes(gzip.compress(capture_path("interleaved").read_bytes()))
    before = left_over()
    for path in (str(PLAIN), str(zipped)):
        for batches_read in (0, 1):
            probe = TsharkFilesProbe([path, path], PORTS)
            batches = probe.batches()
            for _ in range(batches_read):
                next(batches)
            probe.close()
            del batches
            probe.close()
            assert left_over() == before


def test_closing_does_not_wait_for_what_nobody_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What unpacks the file is stuck in front of editcap, and editcap in front of us."""
    monkeypatch.setattr(dissector, "MAX_UNANSWERED_BYTES", 1000)
    zipped = tmp_path / "it.gz"
    zipped.write_bytes(gzip.compress(capture_path("smtp_source_multi").read_bytes()))
    before = left_over()
    probe = TsharkFilesProbe([str(zipped)] * 2, PORTS)
    assert next(iter(probe.batches())) is not None
    time.sleep(0.5)
    probe.close()
    assert left_over() == before


def test_closing_does_not_wait_for_a_pipe(endless_pipe: str) -> None:
    before = left_over()
    probe = TsharkFilesProbe([endless_pipe], PORTS)
    segments: list[Segment] = []
    for batch in probe.batches():
        segments += batch
        if segments:
            break
    probe.close()
    assert left_over() == before


def test_a_probe_that_was_read_to_its_end_leaves_nothing_behind(tmp_path: Path) -> None:
    before = left_over()
    cut = tmp_path / "cut"
    cut.write_bytes(gzip.compress(PLAIN.read_bytes())[:12_000])
    probe = TsharkFilesProbe([str(PLAIN), str(cut)], PORTS)
    with pytest.raises(CaptureInterrupted):
        read_all(probe)
    assert probe.is_caught_up()
    assert left_over() == before


def test_progress_is_told_of_every_batch_and_a_total_is_not_known() -> None:
    told: list[int] = []
    probe = TsharkFilesProbe([str(PLAIN), str(PLAIN)], PORTS, progress=told.append)
    assert probe.total_bytes is None
    assert read_all(probe)
    assert told == sorted(told)
    assert told[-1] > 2 * sum(len(frame.data) for frame in FRAMES)
