"""Session records written by hand, for all that comes after the session."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from monitor.sessions.record import (
    SCHEMA_VERSION,
    Auth,
    Banner,
    By,
    ByteCounts,
    Capture,
    Channel,
    Data,
    Direction,
    Ended,
    Endpoint,
    Envelope,
    GreylisterReach,
    Helo,
    Reach,
    Recipient,
    SessionRecord,
    Starttls,
    StarttlsOutcome,
    Tapped,
    TapResult,
    Tls,
    Transaction,
    TransactionOutcome,
)


def reaches(greylite: str, policy_service: str, recordio: str, spamd: str) -> dict[str, GreylisterReach]:
    """Each as `reach`, or `reach by`; an address-only greylister decides always."""

    def one(text: str) -> GreylisterReach:
        reach, _, by = text.partition(" ")
        return GreylisterReach(Reach(reach), By(by) if by else None)

    return {
        "greylite": one(greylite),
        "jgreylist": one("decided"),
        "policy_service": one(policy_service),
        "recordio": one(recordio),
        "spamd": one(spamd),
    }


MakeRecord = Callable[..., SessionRecord]

CLEARTEXT = SessionRecord(
    schema_version=SCHEMA_VERSION,
    community_id="1:LQU9qZlK+B5F3KDmev6m5PMibrg=",
    start="2026-11-22T12:00:00.123456Z",
    end="2026-11-22T12:00:00.543456Z",
    client=Endpoint("192.0.2.1", 40000),
    server=Endpoint("192.0.2.2", 25),
    direction=Direction.INBOUND,
    proxied_client=None,
    channel=Channel.CLEARTEXT,
    envelope=Envelope.VISIBLE,
    banner=Banner(220, "mx.example ESMTP"),
    helo=(Helo("EHLO", "client.example", 250),),
    starttls=Starttls(True, 0, (), StarttlsOutcome.UNUSED),
    tls=None,
    auth=(Auth("PLAIN", 235),),
    transactions=(
        Transaction(
            mail_from="a@client.example",
            mail_code=250,
            mail_params={"SIZE": "1234"},
            recipients=(
                Recipient("b@example.test", 250, {}, 0.1),
                Recipient("c@example.test", 550, {"NOTIFY": "NEVER"}, 0.2),
                Recipient("d@example.test", None, {}, None),
            ),
            data=Data("DATA", 1249, 250),
            outcome=TransactionOutcome.ACCEPTED,
        ),
    ),
    bytes=ByteCounts(client=2100, server=640, cleartext=2740, encrypted=0),
    ended=Ended.QUIT,
    capture=Capture(complete=True, gap_bytes=0, midstream=False, truncated=False),
    anomalies=(),
    duration_seconds=0.42,
    opaque_from=None,
    greylisters=reaches("decided", "decided", "decided", "decided"),
    client_location=None,
    tapped=None,
)

VARIANTS: dict[str, dict[str, Any]] = {
    "cleartext": {},
    "starttls": {
        "channel": Channel.STARTTLS,
        "envelope": Envelope.HIDDEN,
        "starttls": Starttls(True, 1, (220,), StarttlsOutcome.ESTABLISHED),
        "tls": Tls(
            "TLSv1.3", "TLS_AES_256_GCM_SHA384", "mx.example", None, "t13d1516h2_8daaf6152771_b186095e22b6"
        ),
        "auth": (),
        "transactions": (),
        "bytes": ByteCounts(client=4000, server=5000, cleartext=300, encrypted=8700),
        "greylisters": reaches("bypassed starttls", "decided", "blind starttls", "decided starttls"),
        "duration_seconds": 1.5,
    },
    "tapped": {
        "channel": Channel.STARTTLS,
        "envelope": Envelope.HIDDEN,
        "starttls": Starttls(True, 1, (220,), StarttlsOutcome.ESTABLISHED),
        "tls": Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", None, None, None),
        "auth": (),
        "transactions": (),
        "bytes": ByteCounts(client=4000, server=5000, cleartext=300, encrypted=8700),
        "greylisters": reaches("bypassed starttls", "decided", "blind starttls", "decided starttls"),
        "tapped": Tapped(
            TapResult.WHOLE,
            (
                Transaction(
                    mail_from="",
                    mail_code=250,
                    mail_params={},
                    recipients=(
                        Recipient("b@example.test", 250, {}, 0.1),
                        Recipient("c@example.test", 450, {}, 0.2),
                    ),
                    data=Data("DATA", 1249, 250),
                    outcome=TransactionOutcome.ACCEPTED,
                ),
            ),
            (Auth("LOGIN", 235),),
        ),
    },
    "smtps": {
        "server": Endpoint("192.0.2.2", 465),
        "channel": Channel.IMPLICIT_TLS,
        "envelope": Envelope.HIDDEN,
        "banner": None,
        "helo": (),
        "starttls": Starttls(None, 0, (), StarttlsOutcome.NOT_REACHED),
        "tls": Tls("TLSv1.2", "ECDHE-RSA-AES256-GCM-SHA384", None, None, None),
        "auth": (),
        "transactions": (),
        "bytes": ByteCounts(client=400, server=5000, cleartext=0, encrypted=5400),
        "greylisters": reaches("blind implicit_tls", "decided", "blind implicit_tls", "blind implicit_tls"),
    },
    "scan": {
        "envelope": Envelope.NONE,
        "banner": None,
        "helo": (),
        "starttls": Starttls(None, 0, (), StarttlsOutcome.NOT_REACHED),
        "auth": (),
        "transactions": (),
        "bytes": ByteCounts(client=0, server=0, cleartext=0, encrypted=0),
        "ended": Ended.RESET,
        "duration_seconds": 0.001,
        "greylisters": reaches("no_envelope", "no_envelope", "no_envelope", "no_envelope"),
    },
    "lost": {
        "channel": Channel.UNKNOWN,
        "envelope": Envelope.UNKNOWN,
        "starttls": Starttls(None, 0, (), StarttlsOutcome.UNKNOWN),
        "auth": (),
        "transactions": (),
        "ended": Ended.IDLE,
        "capture": Capture(complete=False, gap_bytes=1448, midstream=True, truncated=False),
        "duration_seconds": 1800.0,
        "greylisters": reaches("unknown", "unknown", "unknown", "unknown"),
    },
}


@pytest.fixture
def make_record() -> MakeRecord:
    """`make_record("starttls", ended=Ended.RESET)`: one of the variants above, changed as asked."""

    def make(variant: str = "cleartext", **changes: Any) -> SessionRecord:
        return replace(CLEARTEXT, **{**VARIANTS[variant], **changes})

    return make
