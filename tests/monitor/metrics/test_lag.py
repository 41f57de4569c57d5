"""How far behind the wire: from packets' time stamps and the clock."""

import time

from monitor.metrics.lag import Lag

HOUR_NS = 3_600 * 10**9


def test_the_lag_is_the_age_of_the_last_packet_and_zero_once_none_waits() -> None:
    lag = Lag()
    assert lag.seconds == 0
    lag.read_until(time.time_ns() - HOUR_NS)
    assert 3_600 <= lag.seconds < 3_700
    lag.nothing_read(is_caught_up=True)
    assert lag.seconds == 0


def test_the_lag_grows_while_packets_wait_and_none_is_read() -> None:
    lag = Lag()
    lag.nothing_read(is_caught_up=False)
    assert lag.seconds == 0  # no packet was read yet, so nobody knows
    lag.read_until(time.time_ns() - HOUR_NS)
    before = lag.seconds
    lag.nothing_read(is_caught_up=False)
    assert lag.seconds > before


def test_a_packet_from_the_future_is_no_lag() -> None:
    lag = Lag()
    lag.read_until(time.time_ns() + HOUR_NS)
    assert lag.seconds == 0
