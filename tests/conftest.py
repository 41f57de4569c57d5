"""What holds for all tests."""

import os

from hypothesis import settings

# A busy machine is slow, and no fault of the code's. CI tries the same examples every time, so that what it
# says of a change is about the change; everybody else tries new ones.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")
