"""Real mail servers and clients; the numbers are told by those who took part.

The sets below are made of `NAME.truth.json` alone: the driver's own account of each session, and the servers'
logs.
"""

import json
from typing import Any

import pytest

from monitor.peers import After, Peers, Return, TlsNeed
from tests.capture_truth import CAPTURES
from tests.segments import frozen_records, segments_of

THREE_DAYS_NS = 3 * 86_400 * 1_000_000_000
END_NS = 1_795_356_000 * 1_000_000_000
"""After the last packet of all the captures below."""


def _peers_of(name: str) -> Peers:
    peers = Peers()
    for record in frozen_records(segments_of(name)):
        peers.record(record)
    return peers


def _truth(name: str) -> dict[str, Any]:
    truth: dict[str, Any] = json.loads((CAPTURES / f"{name}.truth.json").read_text())
    return truth


def _returned(peers: Peers) -> dict[tuple[After, Return], int]:
    return {kind: count for kind, count in peers.returns.items() if count}


def _needs(peers: Peers) -> dict[TlsNeed, int]:
    return {need: count for (need,), count in peers.peers.items() if count}


def test_postgrey_puts_off_what_its_client_brings_again() -> None:
    put_off: set[tuple[str, str, str]] = set()
    again: set[tuple[str, str, str]] = set()
    sent_in_clear, hidden = set(), 0
    for session in _truth("greylist_postgrey")["sessions"]:
        peer = session["client"][0]
        hidden += session["starttls"]["handshake"] == "ok"
        for mail in session["transactions"]:
            if mail["tls"]:
                continue
            sent_in_clear.add(peer)
            named = {(peer, mail["mail_from"], to["to"]) for to in mail["rcpts"]}
            again |= named & put_off
            put_off |= {(peer, mail["mail_from"], to["to"]) for to in mail["rcpts"] if to["code"] == 450}
    assert (len(put_off), len(again), len(sent_in_clear), hidden) == (6, 4, 2, 2)

    peers = _peers_of("greylist_postgrey")
    assert peers.put_off[After.PUT_OFF] == len(put_off)
    assert _returned(peers) == {(After.PUT_OFF, Return.CLEAR): len(again)}
    # The third peer was put off and came again inside TLS, where nobody can see it.
    assert _needs(peers) == {TlsNeed.NEVER_ASKS: len(sent_in_clear), TlsNeed.UNTESTED: 1}
    assert peers.dark_sessions[TlsNeed.UNTESTED,] == hidden
    peers.tick(END_NS + THREE_DAYS_NS)
    assert _returned(peers) == {
        (After.PUT_OFF, Return.CLEAR): len(again),
        (After.PUT_OFF, Return.NEVER): len(put_off) - len(again),
    }


def test_a_postfix_client_goes_on_in_clear_where_starttls_is_refused() -> None:
    truth = _truth("postfix_client")
    refused = [one for one in truth["server_log_sessions"] if one["counts"].get("starttls") == "0/1"]
    assert {one["client"][0] for one in refused} == {"10.77.0.2"}
    assert all(one["transactions"] for one in refused)  # in the same session, so in clear
    hidden = [one for one in truth["server_log_sessions"] + truth["exim_log_sessions"] if one["tls"]]
    hidden += [one for one in truth["aiosmtpd_log_messages"] if one["in_tls"]]

    peers = _peers_of("postfix_client")
    assert peers.returns[After.STARTTLS_REFUSED, Return.CLEAR] == peers.put_off[After.STARTTLS_REFUSED] == 1
    # The handshakes with OpenSMTPD failed. The next that the same address began was its mail for aiosmtpd, in
    # TLS; five seconds later it came back to OpenSMTPD in clear.
    assert peers.returns[After.STARTTLS_FAILED, Return.DARK] == peers.put_off[After.STARTTLS_FAILED] == 1
    assert _needs(peers) == {TlsNeed.FALLS_BACK: 1}
    # chasquid, the one server without a log here, took three.
    assert peers.dark_sessions[TlsNeed.FALLS_BACK,] == len(hidden) + 3


@pytest.mark.parametrize("is_last_left_out", [False, True])
def test_the_last_session_after_454_tells_what_the_peer_needs(is_last_left_out: bool) -> None:
    sessions = _truth("starttls_454")["sessions"]
    assert [(one["starttls"]["codes"][0], len(one["transactions"])) for one in sessions] == [
        (454, 1), (454, 1), (454, 0), (454, 1), (454, 0),
    ]  # fmt: skip
    peers = Peers()
    for record in frozen_records(segments_of("starttls_454"))[: -1 if is_last_left_out else None]:
        peers.record(record)
    assert _returned(peers) == {(After.STARTTLS_REFUSED, Return.CLEAR): 1}  # one address, so one peer
    assert _needs(peers) == {TlsNeed.FALLS_BACK: 1}
    peers.tick(END_NS + THREE_DAYS_NS)
    assert _needs(peers) == {TlsNeed.FALLS_BACK if is_last_left_out else TlsNeed.REQUIRES: 1}


def test_who_breaks_off_the_handshake_and_sends_nothing_in_clear_requires_tls() -> None:
    sessions = _truth("starttls_aborts")["sessions"]
    assert {one["client"][0] for one in sessions} == {"10.77.0.2"}
    assert not any(one["transactions"] for one in sessions)
    established = [number for number, one in enumerate(sessions) if one["starttls"]["handshake"] == "ok"]
    assert established == [13]  # after thirteen that failed

    peers = _peers_of("starttls_aborts")
    assert peers.put_off[After.STARTTLS_FAILED] == 1
    assert _returned(peers) == {(After.STARTTLS_FAILED, Return.DARK): 1}
    assert _needs(peers) == {TlsNeed.UNTESTED: 1}
    peers.tick(END_NS + THREE_DAYS_NS)
    assert _needs(peers) == {TlsNeed.REQUIRES: 1}
    assert peers.dark_sessions[TlsNeed.REQUIRES,] == 1


def test_behind_a_middlebox_that_strips_starttls_mail_goes_on_in_clear() -> None:
    sessions = _truth("striptls")["sessions"]
    # The second and third insist, and their STARTTLS is overwritten; the second sends in clear, and so does
    # the fourth after the third has gone away.
    assert [(one["starttls"]["requested"], len(one["transactions"])) for one in sessions] == [
        (0, 1), (1, 1), (1, 0), (0, 1), (0, 0),
    ]  # fmt: skip
    peers = _peers_of("striptls")
    peers.tick(END_NS + THREE_DAYS_NS)
    assert not any(peers.put_off.values())  # overwritten is not refused
    assert _needs(peers) == {TlsNeed.FALLS_BACK: 1}
