"""What one record adds to each counter."""

from collections.abc import Callable
from threading import Thread

from msgspec.structs import replace

from monitor.anomalies import Anomaly
from monitor.metrics.tally import Tally
from monitor.sessions.record import (
    Auth,
    Capture,
    Ended,
    Endpoint,
    Envelope,
    SessionRecord,
    Starttls,
    StarttlsOutcome,
    Tapped,
    TapResult,
    Tls,
)

MakeRecord = Callable[..., SessionRecord]


def test_a_session_counts_once_under_its_port_direction_channel_and_envelope(
    tally: Tally, make_record: MakeRecord
) -> None:
    tally.count(make_record())
    counts = tally.snapshot()
    assert counts.sessions == {("25", "inbound", "cleartext", "visible"): 1}
    assert counts.starttls == {("25", "inbound", "unused"): 1}
    assert counts.messages == {("25", "accepted"): 1}
    assert counts.recipients == {("25", "2xx"): 1, ("25", "5xx"): 1, ("25", "none"): 1}
    assert counts.bytes == {("25", "cleartext"): 2740, ("25", "encrypted"): 0}
    assert counts.auth == {("25", "PLAIN"): 1}
    assert not counts.tls_handshakes


def test_a_port_that_is_not_watched_is_other(tally: Tally, make_record: MakeRecord) -> None:
    tally.count(make_record(server=Endpoint("192.0.2.2", 2525)))
    assert tally.snapshot().sessions == {("other", "inbound", "cleartext", "visible"): 1}


def test_only_established_encryption_is_a_tls_handshake(tally: Tally, make_record: MakeRecord) -> None:
    tally.count(make_record("starttls"))
    tally.count(make_record("smtps", tls=None))
    tally.count(make_record("smtps", tls=Tls("TLSv9", None, None, None, None)))
    failed = Starttls(True, 1, (220,), StarttlsOutcome.FAILED)
    tally.count(make_record("starttls", envelope=Envelope.NONE, starttls=failed))
    tally.count(make_record("starttls", envelope=Envelope.UNKNOWN))
    assert tally.snapshot().tls_handshakes == {
        ("25", "TLSv1.3"): 2,
        ("465", "unknown"): 1,
        ("465", "other"): 1,
    }


def test_an_invented_auth_mechanism_is_other(tally: Tally, make_record: MakeRecord) -> None:
    tally.count(make_record(auth=(Auth("X-" + "A" * 400, 504), Auth("CRAM-MD5", None))))
    assert tally.snapshot().auth == {("25", "other"): 1, ("25", "CRAM-MD5"): 1}


def test_a_session_counts_under_each_reason_for_which_it_is_incomplete(
    tally: Tally, make_record: MakeRecord
) -> None:
    tally.count(make_record("lost"))
    tally.count(make_record(ended=Ended.CAPTURE_ENDED, capture=Capture(False, 0, False, True)))
    tally.count(make_record(ended=Ended.EVICTED))
    assert tally.snapshot().sessions_incomplete == {
        ("gap",): 1,
        ("midstream",): 1,
        ("idle",): 1,
        ("truncated",): 1,
        ("capture_ended",): 1,
        ("evicted",): 1,
    }


def test_an_anomaly_counts_once_a_session(tally: Tally, make_record: MakeRecord) -> None:
    tally.count(make_record(anomalies=(Anomaly.BARE_LF, Anomaly.EARLY_TALKER)))
    tally.count(make_record(anomalies=(Anomaly.BARE_LF,)))
    assert tally.snapshot().anomalies == {("bare_lf",): 2, ("early_talker",): 1}


def test_what_was_inside_tls_counts_apart_from_what_was_in_clear(
    tally: Tally, make_record: MakeRecord
) -> None:
    tally.count(make_record("tapped"))
    counts = tally.snapshot()
    assert counts.tapped_sessions == {("25", "inbound", "whole"): 1}
    assert counts.tapped_messages == {("25", "accepted"): 1}
    assert counts.tapped_recipients == {("25", "2xx"): 1, ("25", "4xx"): 1}
    assert counts.tapped_auth == {("25", "LOGIN"): 1}
    assert not counts.messages
    assert not counts.recipients
    assert not counts.auth


def test_a_null_sender_counts_under_whether_the_stream_showed_it(
    tally: Tally, make_record: MakeRecord
) -> None:
    tally.count(make_record())
    assert not tally.snapshot().null_sender_messages
    tapped = make_record("tapped")
    bounce, unknown = (replace(make_record().transactions[0], mail_from=sender) for sender in ("", None))
    tally.count(replace(tapped, transactions=(bounce, unknown)))
    assert tally.snapshot().null_sender_messages == {("25", "cleartext"): 1, ("25", "encrypted"): 1}


def test_every_session_with_something_to_tell_of_its_inside_counts_once(
    tally: Tally, make_record: MakeRecord
) -> None:
    for result in TapResult:
        tally.count(make_record("tapped", tapped=Tapped(result)))
    tally.count(make_record("starttls"))
    assert tally.snapshot().tapped_sessions == {("25", "inbound", result.value): 1 for result in TapResult}


def test_a_mismatch_counts(tally: Tally) -> None:
    before = tally.snapshot()
    tally.verdict_mismatch()
    assert (before.verdict_mismatches, tally.snapshot().verdict_mismatches) == (0, 1)


def test_a_duration_on_a_bound_belongs_to_the_bucket_below_it(tally: Tally, make_record: MakeRecord) -> None:
    for seconds in (0.0, 0.01, 0.011, 3600.0, 3600.1):
        tally.count(make_record(duration_seconds=seconds))
    buckets = tally.snapshot().duration_buckets
    assert (buckets[0], buckets[1], buckets[-2], buckets[-1]) == (2, 1, 1, 1)


def test_a_snapshot_no_longer_changes(tally: Tally, make_record: MakeRecord) -> None:
    before = tally.snapshot()
    tally.count(make_record(), written=True)
    assert not before.sessions
    assert not before.records
    assert sum(before.duration_buckets) == 0


def test_a_snapshot_taken_while_another_thread_counts_is_consistent(
    tally: Tally, make_record: MakeRecord
) -> None:
    records = [make_record(variant) for variant in ("cleartext", "starttls", "smtps", "scan", "lost")]
    total = 4000

    def count() -> None:
        for index in range(total):
            tally.count(records[index % len(records)], written=index % 7 != 0)

    thread = Thread(target=count)
    thread.start()
    seen = 0
    while seen < total:
        counts = tally.snapshot()
        seen = counts.sessions.total()
        assert counts.records.total() == seen
        assert counts.starttls.total() == seen
        assert sum(counts.duration_buckets) == seen
    thread.join()
    assert counts.records == {("written",): total - 572, ("failed",): 572}
