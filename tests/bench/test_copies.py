"""A capture that is made longer stays what it was, many times: each copy gives its sessions once more."""

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zstandard

from probes.pcap.files import CaptureFilesProbe
from tests.bench.copies import PAUSE_US, copied, write_copies
from tests.endurance.multiplier import FILE_HEADER_BYTES, copy_of, packets_in
from tests.segments import PORTS, records_of
from tests.timeless import timeless

COPIES = 2


@pytest.fixture(scope="module")
def plain() -> bytes:
    path = Path(__file__).parents[1] / "captures" / "mid.pcap.zst"
    return zstandard.decompress(path.read_bytes())


def test_a_copy_has_every_packet_of_the_original_as_long_as_it_was(plain: bytes) -> None:
    packets = list(packets_in(plain))
    header, *copies = copied(plain, COPIES)
    assert header == plain[:FILE_HEADER_BYTES]
    assert len(copies) == COPIES
    for copy in copies:
        assert [len(packet.data) for packet in packets_in(header + copy)] == [
            len(one.data) for one in packets
        ]


def test_copies_come_one_after_the_other_with_the_distances_of_the_original(plain: bytes) -> None:
    times = [packet.at_us for packet in packets_in(plain)]
    header, *copies = copied(plain, COPIES)
    of_copies = [[packet.at_us for packet in packets_in(header + copy)] for copy in copies]
    assert of_copies[0] == times
    for earlier, later in itertools.pairwise(of_copies):
        shifts = {after - before for before, after in zip(earlier, later, strict=True)}
        assert len(shifts) == 1
        assert min(later) - max(earlier) == PAUSE_US


def test_each_copy_has_the_sessions_of_the_original_from_clients_of_its_own(
    plain: bytes, tmp_path: Path
) -> None:
    originals, copies = tmp_path / "mid.pcap", tmp_path / "copies.pcap"
    originals.write_bytes(plain)
    write_copies(plain, COPIES, copies)
    wanted, found = read(originals), read(copies)
    clients = [record["client"]["ip"] for record in found]
    assert len(set(clients)) == COPIES * len({record["client"]["ip"] for record in wanted})
    for copy in range(COPIES):
        of_copy = [record for record in found if copy_of(record["client"]["ip"])[0] == copy]
        assert sorted(map(seen, of_copy)) == sorted(map(seen, wanted))


def test_the_tool_writes_what_it_is_told_to_standard_output(plain: bytes, tmp_path: Path) -> None:
    original = tmp_path / "mid.pcap"
    original.write_bytes(plain)
    command = [sys.executable, "-m", "tests.bench.copies", str(original), "2"]
    assert subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout == b"".join(copied(plain, 2))


def test_more_copies_than_there_are_addresses_are_refused(plain: bytes) -> None:
    with pytest.raises(ValueError, match="at most"):
        list(copied(plain, 1_000))


def test_of_a_capture_without_packets_there_is_nothing_to_copy(plain: bytes) -> None:
    assert b"".join(copied(plain[:FILE_HEADER_BYTES], COPIES)) == plain[:FILE_HEADER_BYTES]


def read(path: Path) -> list[dict[str, Any]]:
    probe = CaptureFilesProbe([str(path)], PORTS)
    return records_of(segment for batch in probe.batches() for segment in batch)


def seen(record: dict[str, Any]) -> str:
    """What changes neither with the client's address nor with the time."""
    same = {name: value for name, value in timeless(record).items() if name not in ("client", "community_id")}
    return json.dumps([record["client"]["port"], same])
