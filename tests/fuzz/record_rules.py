"""What holds for every record, whatever the traffic was."""

import json
import re
from datetime import datetime
from ipaddress import ip_address
from typing import Any, Final

import msgspec

from monitor.metrics.tally import Tally
from monitor.peers import Peers
from monitor.records import encode
from monitor.sessions.record import Direction, Ended, SessionRecord
from monitor.tls.names import VERSIONS
from tests.segments import PORTS

_VERBS_OF_GREETINGS: Final = {"HELO", "EHLO", "LHLO"}
_VERSIONS: Final = {None, "SSLv2", *VERSIONS.values()}
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_COMMUNITY_ID: Final = re.compile(r"1:[A-Za-z0-9+/]{27}=")
_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

# They live as long as the process, and take whatever comes: small, so that their bounds are reached.
_TALLY: Final = Tally(PORTS, None)
_PEERS: Final = Peers(is_tapped=True, peers_limit=64, things_limit=64)


def check_record(record: SessionRecord) -> tuple[bytes, dict[str, Any]]:
    """The record's line, and what it says as JSON. Raises AssertionError, or what the decoder does, where it
    is not as docs/record.md has it."""
    line = encode(record)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert not _UNSAFE.search(line[:-1].decode())
    # The types and the closed sets of values; and that nothing was lost on the way.
    assert msgspec.json.decode(line, type=SessionRecord) == record
    _check_values(record)
    _TALLY.count(record, True)
    _PEERS.record(record)
    found: dict[str, Any] = json.loads(line)
    return line, found


def _check_values(record: SessionRecord) -> None:
    assert record.schema_version == 1
    assert _COMMUNITY_ID.fullmatch(record.community_id)
    for moment in (record.start, record.end):
        assert _TIME.fullmatch(moment)
        datetime.fromisoformat(moment)
    assert record.start <= record.end
    assert record.duration_seconds >= 0
    for end in filter(None, (record.client, record.server, record.proxied_client)):
        assert str(ip_address(end.ip)) == end.ip
        assert 0 <= end.port <= 65_535
    assert all(helo.verb in _VERBS_OF_GREETINGS for helo in record.helo)
    assert record.tls is None or record.tls.version in _VERSIONS
    codes = [record.banner.code] if record.banner is not None else []
    codes += [code for code in record.starttls.codes if code is not None]
    codes += [helo.code for helo in record.helo if helo.code is not None]
    codes += [auth.code for auth in record.auth if auth.code is not None]
    assert 0 <= record.starttls.requested >= len(record.starttls.codes)
    for transaction in record.transactions:
        codes += [recipient.code for recipient in transaction.recipients if recipient.code is not None]
        assert all(
            recipient.after_seconds is None or 0 <= recipient.after_seconds <= record.duration_seconds
            for recipient in transaction.recipients
        )
        data = transaction.data
        if data is not None:
            assert data.verb in ("DATA", "BDAT")
            assert data.wire_bytes is None or data.wire_bytes >= 0
            codes += [data.code] if data.code is not None else []
        codes += [transaction.mail_code] if transaction.mail_code is not None else []
    assert all(0 <= code <= 999 for code in codes)
    count = record.bytes
    assert min(count.client, count.server, count.cleartext, count.encrypted) >= 0
    assert count.client + count.server == count.cleartext + count.encrypted
    capture = record.capture
    assert capture.gap_bytes >= 0
    assert not (capture.complete and (capture.gap_bytes or capture.midstream or capture.truncated))
    assert not (capture.complete and record.ended in (Ended.IDLE, Ended.EVICTED, Ended.CAPTURE_ENDED))
    assert len(set(record.anomalies)) == len(record.anomalies)
    assert bool(record.greylisters) == (record.direction is not Direction.OUTBOUND)
