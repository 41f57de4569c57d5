"""What may be believed of the datagrams that tshark puts together."""

from probes.fragments import COPY_PATIENCE_NS, PATIENCE_NS
from probes.probe import DropSite, PacketCounts
from probes.tshark.fragments import MAX_DATAGRAMS, DatagramKey, FragmentWatch


def key(number: int = 1) -> DatagramKey:
    return DatagramKey("10.0.0.1", "10.0.0.2", hex(number))


class Watched:
    """A watch, and what it counts."""

    def __init__(self) -> None:
        self._counts = PacketCounts()
        self.watch = FragmentWatch(self._counts)

    @property
    def dropped(self) -> int:
        return self._counts.dropped[DropSite.FRAGMENTS]


def test_a_datagram_whose_fragments_came_in_time_is_believed() -> None:
    it = Watched()
    it.watch.wait(0, key(), "0")
    it.watch.wait(1, key(), "5")
    assert it.watch.complete(PATIENCE_NS - 1, key(), contradicts=False)
    it.watch.begin_anew()
    assert it.dropped == 0


def test_one_whose_first_fragment_is_too_old_is_not() -> None:
    it = Watched()
    it.watch.wait(0, key(), "0")
    it.watch.wait(1, key(), "5")
    assert not it.watch.complete(PATIENCE_NS, key(), contradicts=False)
    assert it.dropped == 3


def test_what_joins_an_old_one_is_dropped_with_it() -> None:
    """tshark would fill the old one's gap with it."""
    it = Watched()
    it.watch.wait(0, key(), "5")
    it.watch.wait(PATIENCE_NS, key(), "0")
    assert not it.watch.complete(PATIENCE_NS + 1, key(), contradicts=False)
    assert it.dropped == 3
    it.watch.wait(PATIENCE_NS + 2, key(), "0")
    assert it.watch.complete(PATIENCE_NS + 3, key(), contradicts=False)
    assert it.dropped == 3


def test_one_that_contradicts_itself_is_not_believed() -> None:
    it = Watched()
    it.watch.wait(0, key(), "0")
    it.watch.wait(0, key(), "0")
    assert not it.watch.complete(0, key(), contradicts=True)
    assert it.dropped == 2


def test_copies_are_neither_believed_nor_counted_nor_mixed_with_what_comes_later() -> None:
    it = Watched()
    it.watch.wait(0, key(), "0")
    it.watch.wait(0, key(), "0")
    assert it.watch.complete(1, key(), contradicts=False)
    it.watch.wait(2, key(), "0")
    assert not it.watch.complete(3, key(), contradicts=False)
    it.watch.wait(4, key(), "5")
    assert it.dropped == 0
    # The last copy is still with tshark.
    later = COPY_PATIENCE_NS + 1
    assert not it.watch.complete(later, key(), contradicts=False)
    assert it.dropped == 1


def test_a_clock_that_steps_back_ends_no_datagram() -> None:
    it = Watched()
    it.watch.wait(10**18, key(), "0")
    assert it.watch.complete(10**18 - 3600 * 10**9, key(), contradicts=False)
    it.watch.wait(10**18 - 7200 * 10**9, key(), "0")
    assert it.watch.complete(10**18 - 7200 * 10**9, key(), contradicts=False)
    assert it.dropped == 0


def test_another_tshark_knows_nothing_of_the_first_ones() -> None:
    it = Watched()
    it.watch.wait(0, key(), "0")
    it.watch.begin_anew()
    assert it.dropped == 1
    it.watch.wait(1, key(), "0")
    assert it.watch.complete(2, key(), contradicts=False)
    assert it.dropped == 1


def test_memory_has_a_bound_and_what_goes_over_it_is_dropped() -> None:
    it = Watched()
    for number in range(3 * MAX_DATAGRAMS):
        it.watch.wait(number, key(number), "0")
        assert len(it.watch._waiting) <= MAX_DATAGRAMS
        assert len(it.watch._stale) <= MAX_DATAGRAMS
    assert it.dropped == 2 * MAX_DATAGRAMS
    assert it.watch.complete(3 * MAX_DATAGRAMS, key(3 * MAX_DATAGRAMS - 1), contradicts=False)
    assert not it.watch.complete(3 * MAX_DATAGRAMS, key(0), contradicts=False)
    for number in range(MAX_DATAGRAMS, 3 * MAX_DATAGRAMS):
        it.watch.wait(number, key(-number), "0")
        assert it.watch.complete(number, key(-number), contradicts=False)
        assert len(it.watch._closed) <= MAX_DATAGRAMS
