"""Records that the probe left out: where the next one begins stays known, whatever was cut."""

import pytest

from monitor.side import Side
from monitor.tls.handshake import TlsReader

RECORD = b"\x17\x03\x03\x00\x20" + bytes(32)


@pytest.mark.parametrize("cut", range(1, len(RECORD)))
def test_behind_what_was_left_out_records_go_on(cut: int) -> None:
    """`cut`: so much of a record had passed where the stretch ended."""
    reader = TlsReader()
    assert reader.receive(Side.CLIENT, RECORD) == b""
    left = -cut if cut < 5 else len(RECORD) - cut
    edge = RECORD[max(0, cut - 4) : cut].rjust(4, b"\0")
    reader.left_out(Side.CLIENT, edge, left)
    assert reader.receive(Side.CLIENT, RECORD[cut:] + RECORD) == b""
    assert reader.receive(Side.CLIENT, b"QUIT\r\n") == b"QUIT\r\n"


def test_what_was_left_out_before_encryption_was_established_is_in_doubt() -> None:
    reader = TlsReader()
    reader.receive(Side.CLIENT, RECORD)
    assert not reader.in_doubt
    reader.left_out(Side.CLIENT, bytes(4), 0)
    assert reader.in_doubt
