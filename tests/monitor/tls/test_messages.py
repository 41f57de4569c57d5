from hypothesis import given
from hypothesis import strategies as st

from monitor.tls.messages import MAX_HELLO_BYTES, HelloCollector

HELLO, CERTIFICATE = 2, 11


def message(message_type: int, body: bytes) -> bytes:
    return bytes((message_type,)) + len(body).to_bytes(3, "big") + body


def collected(collector: HelloCollector, stream: bytes, size: int) -> list[bytes]:
    found = (collector.receive(stream[at : at + size]) for at in range(0, len(stream), size))
    return [body for body in found if body is not None]


@given(
    before=st.lists(st.binary(max_size=50), max_size=4), hello=st.binary(max_size=50), size=st.integers(1, 99)
)
def test_the_hello_is_found_behind_other_messages_however_they_are_cut(
    before: list[bytes], hello: bytes, size: int
) -> None:
    stream = b"".join(message(CERTIFICATE, body) for body in before) + message(HELLO, hello)
    assert collected(HelloCollector(HELLO), stream, size) == [hello]


def test_a_hello_over_the_bound_is_given_up_and_nothing_of_it_kept() -> None:
    collector = HelloCollector(HELLO)
    assert collected(collector, message(HELLO, bytes(MAX_HELLO_BYTES)), 1000) == []
    assert (collector.wanted, len(collector._buffer)) == (False, 0)


def test_the_largest_hello_fits() -> None:
    body = bytes(MAX_HELLO_BYTES - 4)
    assert collected(HelloCollector(HELLO), message(HELLO, body), 16_384) == [body]


@given(st.lists(st.one_of(st.binary(max_size=20_000), st.integers(0, 20_000)), max_size=20))
def test_no_input_keeps_more_than_a_hello_and_a_fragment(inputs: list[bytes | int]) -> None:
    collector = HelloCollector(HELLO)
    for each in inputs:
        if isinstance(each, int):
            collector.lost(each)
        else:
            collector.receive(each)
        assert len(collector._buffer) <= MAX_HELLO_BYTES


def test_a_loss_within_a_skipped_message_costs_nothing() -> None:
    collector = HelloCollector(HELLO)
    collector.receive(message(CERTIFICATE, bytes(100))[:40])
    assert collector.lost(64)
    assert collector.receive(message(HELLO, b"here")) == b"here"


def test_a_loss_within_the_hello_gives_it_up() -> None:
    collector = HelloCollector(HELLO)
    collector.receive(message(HELLO, bytes(100))[:40])
    assert not collector.lost(1)
    assert collector.receive(bytes(100)) is None
