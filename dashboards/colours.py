"""One colour for one meaning, on all boards.

Out of sight is neither good nor bad: TLS hides mail from us, and from everybody else. So the shares have
colours of their own, and green, orange and red are left to what an operator should do something about.
"""

from typing import Final

HIDDEN: Final = "#A352CC"
HIDDEN_FROM_START: Final = "#6C3C8F"
"""By TLS from the first byte."""
PARTIAL: Final = "#D5A8EB"
VISIBLE: Final = "#5794F2"
KNOWN: Final = "#3A5FA0"
"""Let through without a look."""
UNKNOWN: Final = "#8E8E8E"
NOTHING: Final = "#565B66"
"""There was nothing to see: a session without mail."""

GOOD: Final = "#56A64B"
NOTICE: Final = "#F2A33A"
BAD: Final = "#E0394A"
REFERENCE: Final = "#B8A26B"
