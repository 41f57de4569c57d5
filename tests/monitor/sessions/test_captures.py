"""Every capture gives records equal to what those who took part say of it."""

import pytest

from tests.capture_truth import capture_names, server_logs, truths
from tests.lab.compare import differences, key, unmatched
from tests.segments import records_of, segments_of


@pytest.mark.parametrize("name", [*capture_names(), "mid"])
def test_records_equal_the_truth(name: str) -> None:
    records = records_of(segments_of(name))
    witnesses = truths(name)
    known = {truth.key for truth in witnesses}
    pairs, complaints = unmatched([record for record in records if key(record) in known], witnesses)
    complaints += [
        f"{key(record)}: {difference}" for record, truth in pairs for difference in differences(record, truth)
    ]
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("name", capture_names())
def test_no_session_is_invented_and_none_is_missing(name: str) -> None:
    records = records_of(segments_of(name))
    clients = [(record["client"]["ip"], record["client"]["port"]) for record in records]
    logged = {tuple(entry["client"]) for entry in server_logs(name)}
    driven = {truth.client for truth in truths(name)}
    # A server's log has no line for a connection that ended before it was accepted.
    assert driven | logged <= set(clients)
    assert len(clients) == len(set(clients))


@pytest.mark.parametrize("name", ["smtp_source_plain", "smtp_source_multi", "postfix_client"])
def test_messages_in_clear_are_those_that_the_server_logged(name: str) -> None:
    accepted = {
        (record["client"]["ip"], record["client"]["port"]): [
            (
                transaction["mail_from"],
                [to["address"] for to in transaction["recipients"] if to["code"] // 100 == 2],
            )
            for transaction in record["transactions"]
            if transaction["outcome"] == "accepted"
        ]
        for record in records_of(segments_of(name))
    }
    compared = 0
    for entry in server_logs(name):
        if entry["tls"] is not None:
            continue
        logged = [
            (one["mail_from"], one["rcpts"]) for one in entry["transactions"] if one["size"] is not None
        ]
        seen = accepted[tuple(entry["client"])]
        assert [sender for sender, _ in seen] == [sender for sender, _ in logged]
        assert [sorted(to) for _, to in seen] == [sorted(to) for _, to in logged]
        compared += len(logged)
    assert compared > 0
