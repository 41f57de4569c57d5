"""The kernel's boot time, in which the filter stamps packets, to UTC.

Boot time goes on during suspend and never steps, so packets keep their distances; what it is apart from
UTC changes only when somebody sets the clock. So the distance is measured again and again, and a step is
followed at once.
"""

import time
from typing import Final

# How often the first measurement is repeated; the quickest is the most exact.
FIRST_MEASUREMENTS: Final = 5


def _measure() -> tuple[int, int]:
    """The distance, and how far it may be wrong: the time that measuring it took."""
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    utc = time.time_ns()
    after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return utc - (before + after) // 2, after - before


class BootClock:
    """Adds up to UTC: `at_boot_ns + utc_minus_boot_ns`."""

    __slots__ = ("_error_ns", "least_utc_minus_boot_ns", "utc_minus_boot_ns")

    def __init__(self) -> None:
        measured = (_measure() for _ in range(FIRST_MEASUREMENTS))
        self.utc_minus_boot_ns, self._error_ns = min(
            measured, key=lambda distance_and_error: distance_and_error[1]
        )
        self.least_utc_minus_boot_ns = self.utc_minus_boot_ns
        """The least that it ever was: a time that is made with this one was not later."""

    def follow(self) -> None:
        """Measures again. A change within the error of measurement is none: packets keep their distances."""
        distance_ns, error_ns = _measure()
        if abs(distance_ns - self.utc_minus_boot_ns) > error_ns + self._error_ns:
            self.utc_minus_boot_ns, self._error_ns = distance_ns, error_ns
            self.least_utc_minus_boot_ns = min(self.least_utc_minus_boot_ns, distance_ns)
