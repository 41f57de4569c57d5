"""How much is done of everything: `FULL` is `make bench`, `QUICK` shows that all of it runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True, slots=True)
class Scale:
    capture: Path
    """For read; a pcap file, compressed or not."""
    read_rounds: int
    long_read_rounds: int
    """Of what takes long, pyshark, and of what varies little, the memory on the longest capture."""
    copies: int
    """Of the capture, in the longer one; the longest has twice as many."""

    steady_rounds: int
    steady_sessions: int
    flat_out_rounds: int
    flat_out_sessions: int
    postfix_rounds: int
    postfix_sessions: int

    size_rounds: int
    size_sessions: int
    size_sessions_beside: int
    """Where no goal is."""
    size_bytes: tuple[int, int]
    """Of a small message, and of a large one."""
    idle_seconds: float
    """For which watch is watched doing nothing."""

    scraped_sessions: int

    tap_rounds: int
    tap_sessions: int

    open_sessions: int
    flood_packets: int
    flood_count_seconds: float
    """How long the count of them may take: as long as a handshake that is under way may be held, and more."""


_CAPTURES: Final = Path(__file__).parents[1] / "captures"

FULL: Final = Scale(
    capture=_CAPTURES / "mid.pcap.zst",
    read_rounds=5,
    # Chosen because pyshark takes half a minute each time.
    long_read_rounds=2,
    copies=10,
    steady_rounds=3,
    steady_sessions=2_000,
    flat_out_rounds=5,
    flat_out_sessions=10_000,
    # Chosen because a mail server's throughput varies by some percent from run to run.
    postfix_rounds=5,
    postfix_sessions=2_000,
    size_rounds=3,
    size_sessions=1_000,
    size_sessions_beside=250,
    size_bytes=(1_000, 1_000_000),
    idle_seconds=4,
    scraped_sessions=24_000,
    # Chosen because a turn's time varies by a tenth, and what is looked for is some hundredths.
    tap_rounds=40,
    tap_sessions=150,
    open_sessions=50_000,
    flood_packets=1_000_000,
    flood_count_seconds=90,
)
QUICK: Final = Scale(
    capture=_CAPTURES / "plain_single.pcap",
    read_rounds=1,
    long_read_rounds=1,
    copies=2,
    steady_rounds=1,
    steady_sessions=20,
    flat_out_rounds=1,
    flat_out_sessions=100,
    postfix_rounds=1,
    postfix_sessions=20,
    size_rounds=1,
    size_sessions=20,
    size_sessions_beside=20,
    size_bytes=(1_000, 100_000),
    idle_seconds=0.5,
    scraped_sessions=400,
    tap_rounds=1,
    tap_sessions=20,
    open_sessions=200,
    flood_packets=2_000,
    flood_count_seconds=0,
)
