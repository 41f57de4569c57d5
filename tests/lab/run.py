"""`make run`: the main job, on whatever machine this is. `python -m tests.lab.run [INTERFACE]`.

not root                         read a capture that is shipped, and say why
an interface named               watch it
a mail server listens here       watch all interfaces
none does                        the demonstration: a mail server of our own, in network namespaces

Where another program, as the service, has the port of the metrics, another one is taken, and said.
"""

import os
import sys
from pathlib import Path
from typing import Final

import psutil

from tests.lab import demo

PORTS: Final = (25, 465, 587)
PROGRAM: Final = Path(sys.executable).with_name("smtp-horizon")
SHIPPED_CAPTURE: Final = Path(__file__).parents[1] / "captures" / "mid.pcap.zst"


def main(interfaces: list[str]) -> int:
    if os.geteuid() != 0:
        print(
            "Not root, so nothing can be captured here: reading a capture of real mail servers instead.\n"
            f"As any user: {PROGRAM.name} read FILE. As root: make run watches this machine.\n",
            flush=True,
        )
        become("read", "--format", "table", str(SHIPPED_CAPTURE))
    if interfaces:
        become("watch", *(word for name in interfaces for word in ("--interface", name)), *where_to_serve())
    listening = smtp_listeners()
    if listening:
        print(
            f"A mail server listens on port {', '.join(map(str, listening))}: watching it. Ctrl-C ends.",
            flush=True,
        )
        become("watch", *where_to_serve())
    return demo.main()


def where_to_serve() -> tuple[str, str]:
    """An option of watch."""
    host, port = demo.where_to_serve()
    return "--listen", f"{host}:{port}"


def smtp_listeners() -> list[int]:
    """The SMTP ports on which something listens."""
    listening = (
        connection.laddr.port
        for connection in psutil.net_connections("tcp")
        if connection.laddr and connection.status == psutil.CONN_LISTEN
    )
    return sorted({port for port in listening if port in PORTS})


def become(*words: str) -> None:
    """Goes on as smtp-horizon itself, so that signals and the exit status are its own."""
    os.execv(PROGRAM, [PROGRAM.name, *words])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
