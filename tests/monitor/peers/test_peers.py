"""The front: whose records count, what is kept, and what always agrees."""

import gc
import types
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from monitor.peers import After, GivenUp, Peers, TlsNeed
from monitor.peers.lately import LATENESS_NS
from monitor.sessions.record import Endpoint, SessionRecord
from monitor.sessions.table import Limits
from tests.monitor.conftest import CLEARTEXT
from tests.monitor.peers.conftest import MakeDiary
from tests.monitor.peers.diary import Diary


def test_the_real_client_behind_a_proxy_is_the_peer(diary: Diary) -> None:
    first = diary.record("0s 10.0.0.1 unused a>b:450")
    again = diary.record("1m 10.0.0.1 unused a>b:250/250")
    diary.peers.record(replace(first, proxied_client=Endpoint("192.0.2.1", 40_000)))
    diary.peers.record(replace(again, proxied_client=Endpoint("198.51.100.1", 40_000)))
    assert diary.returns == {"put_off pending": 1}
    diary.peers.record(replace(again, proxied_client=Endpoint("192.0.2.1", 40_001)))
    assert diary.returns == {"put_off clear": 1}


def test_ticks_before_the_first_record_do_nothing(diary: Diary) -> None:
    assert not diary.tell("tick 1h").tell("tick 0s").tell("tick 9d").returns


def texts_within(root: object) -> set[str | bytes]:
    """Every string that can be reached from there, but for what programs are made of."""
    seen, found, waiting = {id(root)}, set(), [root]
    while waiting:
        for inner in gc.get_referents(waiting.pop()):
            if id(inner) in seen or isinstance(inner, (type, types.ModuleType, types.FunctionType)):
                continue
            seen.add(id(inner))
            waiting.append(inner)
            if isinstance(inner, (str, bytes)):
                found.add(inner)
    return found


def test_no_address_and_no_envelope_stays_in_memory(diary: Diary) -> None:
    diary.tell("0s 203.0.113.77 refused someone@secret.example>other@secret.test:450")
    diary.tell("1s 203.0.113.78 refused").tell("2s 203.0.113.79 established").tell(
        "3s 203.0.113.80 unknown lost"
    )
    texts = texts_within(diary.peers)
    assert "starttls_refused" in texts  # it does look into them
    assert sum(isinstance(text, bytes) and len(text) == 8 for text in texts) >= 5
    for text in texts:
        encoded = text.encode() if isinstance(text, str) else text
        for trace in (b"secret", b"someone", b"203.0.113", bytes((203, 0, 113))):
            assert trace not in encoded


def test_equal_things_have_other_keys_in_another_process(make_diary: MakeDiary) -> None:
    one, other = (texts_within(make_diary().tell("0s 192.0.2.1 refused").peers) for _ in range(2))
    keys = {text for text in one if isinstance(text, bytes) and len(text) == 8}
    assert keys
    assert not keys & other


WHEN = st.integers(0, 5 * 86_400).map(lambda seconds: f"{seconds}s") | st.sampled_from(
    ["0s", "1s", "2d", "2d1s", "2d1h", "2d1h1s", "1h", "1h1s", "59m"]
)
LENGTHS = st.sampled_from([0, 1, 2, 600, 5_000, 200_000])
PEERS = st.sampled_from(["192.0.2.1", "192.0.2.2", "192.0.3.1", "2001:db8::1", "2001:db8::2"])
OUTCOMES = st.sampled_from(
    [
        "refused",
        "failed",
        "abandoned",
        "masked",
        "not_offered",
        "unused",
        "not_reached",
        "established",
        "unknown",
    ]
)
MAILS = st.lists(
    st.sampled_from(["a>b:450", "a>b:250/250", "a>c:450", "c>d:250/451", ">e:421", "?>b:450", "a>?:450"]),
    max_size=3,
)
FLAGS = st.sampled_from(["", "", "", "lost", "open", "gap", "tls", "overflow", "outbound"])


@st.composite
def sessions(draw: st.DrawFn) -> list[str]:
    """Lines of a diary, in any order of time; mostly forward."""
    lines = []
    for _ in range(draw(st.integers(1, 25))):
        if draw(st.integers(0, 9)) == 0:
            lines.append(f"tick {draw(WHEN)}")
            continue
        begin = draw(WHEN)
        mails = " ".join(draw(MAILS))
        lines.append(f"{begin}-{begin}{draw(LENGTHS)}s {draw(PEERS)} {draw(OUTCOMES)} {mails} {draw(FLAGS)}")
    return sorted(lines, key=_begin) if draw(st.booleans()) else lines


def _begin(line: str) -> tuple[int, str]:
    when = (line.split()[1] if line.startswith("tick") else line.partition("-")[0]).replace("s", "")
    return (int(when) if when.isdigit() else 0), line


def _make_record(**changes: Any) -> SessionRecord:
    return replace(CLEARTEXT, **changes)


@given(sessions(), st.sampled_from([1, 2, 200]), st.sampled_from([1, 2, 200]))
@settings(max_examples=400, deadline=None)
def test_the_sums_agree_after_every_record(lines: list[str], peers_limit: int, things_limit: int) -> None:
    diary = Diary(_make_record, peers_limit=peers_limit, things_limit=things_limit)
    before = 0
    for line in lines:
        diary.tell(line)
        _sums_agree(diary.peers)
        counted = sum(diary.peers.returns.values()) + sum(diary.peers.given_up.values())
        assert counted >= before  # counters never go back
        before = counted
        assert sum(diary.peers.pending.values()) <= things_limit
        assert sum(diary.peers.peers.values()) <= peers_limit
    diary.peers.tick(2**62)
    _sums_agree(diary.peers)
    assert not any(diary.peers.pending.values())  # nothing waits for ever


def _sums_agree(peers: Peers) -> None:
    for after in After:
        returned = sum(count for (kind, _), count in peers.returns.items() if kind is after)
        given_up = sum(peers.given_up[after, why] for why in GivenUp)
        assert peers.put_off[after] == returned + given_up + peers.pending[after]
    assert min(peers.pending.values()) >= 0
    assert min(peers.peers.values()) >= 0
    assert min(peers.dark_sessions.values()) >= 0
    for need in TlsNeed:
        assert peers.peers[need,] or not peers.dark_sessions[need,]


@given(sessions())
@settings(max_examples=200, deadline=None)
def test_the_gauges_say_what_counting_all_peers_anew_would(lines: list[str]) -> None:
    diary = Diary(_make_record, peers_limit=3)
    for line in lines:
        diary.tell(line)
    remembered = list(diary.peers._tls_needs._peers.values())
    for need in TlsNeed:
        mine = [peer for peer in remembered if peer.need is need]
        assert diary.peers.peers[need,] == len(mine)
        assert diary.peers.dark_sessions[need,] == sum(peer.dark_sessions for peer in mine)


@given(sessions())
@settings(max_examples=200, deadline=None)
def test_nothing_is_kept_of_what_is_over(lines: list[str]) -> None:
    diary = Diary(_make_record)
    for line in lines:
        diary.tell(line)
    returns = diary.peers._returns
    waiting = [thing for thing in returns._things.values() if thing.is_pending]
    assert sum(map(len, returns._by_peer.values())) == len(waiting) == sum(diary.peers.pending.values())
    assert set(returns._by_pair.values()) <= set(waiting)
    diary.peers.tick(2**62)
    assert not returns._things
    assert not returns._by_peer
    assert not returns._by_pair
    assert not diary.peers._tls_needs._away
    assert not len(diary.peers._lately)


def test_a_session_that_fell_silent_has_its_record_before_that_counts_as_a_clock_set_back() -> None:
    assert Limits().idle_seconds * 1e9 < LATENESS_NS


def test_the_late_are_bounded_as_well(make_diary: MakeDiary) -> None:
    diary = make_diary(peers_limit=4)
    for number in range(30):
        diary.tell(f"1m 192.0.2.{number} unknown lost")
    assert len(diary.peers._lately) == 4
