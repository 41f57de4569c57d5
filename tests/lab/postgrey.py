"""postgrey, from Debian's package: a policy service that Postfix asks about each recipient.

It runs with a database in a folder of its own, and with the package's whitelist of recipients (postmaster and
abuse), but without that of clients, which are reverse DNS names.
"""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from tests.lab.network import Namespace
from tests.lab.packages import SERVERS_ROOT
from tests.lab.postgrey_log import Answer, read_postgrey_log
from tests.lab.unpacked import inside, prepare_root, run_unpacked
from tests.lab.watch import Process

PROGRAM: Final = "/usr/sbin/postgrey"
WHITELISTED_RECIPIENTS: Final = "/usr/share/postgrey/whitelist_recipients"
DATABASE: Final = "/var/lib/postgrey"
USER: Final = "postgrey"
PORT: Final = 10_023
DELAY_SECONDS: Final = 5
"""Long enough for a retry to come too early on a busy machine, short enough to wait for it."""

# Opens the database as postgrey itself would after a crash: what stands in its log files only is recovered.
_DUMP: Final = """\
use BerkeleyDB;
my ($folder, $name) = @ARGV;
my $home = BerkeleyDB::Env->new(
    -Home => $folder, -Flags => DB_CREATE | DB_RECOVER | DB_INIT_TXN | DB_INIT_MPOOL | DB_INIT_LOG
) or die "$folder: $BerkeleyDB::Error";
my $table = BerkeleyDB::Btree->new(-Filename => $name, -Env => $home) or die "$name: $BerkeleyDB::Error";
my ($key, $value) = ("", "");
my $cursor = $table->db_cursor();
print "$key\\0$value\\0" while $cursor->c_get($key, $value, DB_NEXT) == 0;
"""


class Postgrey(Process):
    """Listens on the namespace's loopback interface; a context manager."""

    def __init__(
        self,
        namespace: Namespace,
        folder: Path,
        *,
        port: int = PORT,
        delay_seconds: int = DELAY_SECONDS,
        whitelist_after: int = 5,
    ) -> None:
        """`whitelist_after`: so many successes of a client, at most one an hour, whitelist it."""
        self._folder = folder
        self._port = port
        super().__init__(
            namespace,
            inside(
                folder,
                [
                    *(PROGRAM, f"--inet=127.0.0.1:{port}", f"--user={USER}", f"--group={USER}"),
                    *(f"--dbdir={DATABASE}", f"--delay={delay_seconds}"),
                    f"--auto-whitelist-clients={whitelist_after}",
                    *("--whitelist-clients=/dev/null", f"--whitelist-recipients={WHITELISTED_RECIPIENTS}"),
                ],
                SERVERS_ROOT,
            ),
            folder.with_suffix(".log"),
        )

    def __enter__(self) -> Self:
        numbers = prepare_root(self._folder, [USER], {}, {})
        database = Path(f"{self._folder}{DATABASE}")
        database.mkdir(parents=True)
        os.chown(database, numbers[USER], numbers[USER])
        super().__enter__()
        try:
            self._namespace.await_listeners([("127.0.0.1", self._port)])
        except TimeoutError as error:
            self.stop()
            raise RuntimeError(f"postgrey did not start: {error}\n{self.said()[-2000:]}") from error
        return self

    @property
    def restriction(self) -> str:
        """For Postfix's smtpd_recipient_restrictions."""
        return f"check_policy_service inet:127.0.0.1:{self._port}"

    def answers(self) -> list[Answer]:
        return list(read_postgrey_log(self.said()))

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """It does nothing for so long; who asks has to wait."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def await_question(self, *, timeout_seconds: float = 10) -> None:
        """Until somebody has asked what it has not read yet."""
        deadline = time.monotonic() + timeout_seconds
        while not any(self._unread_octets()):
            if time.monotonic() > deadline:
                raise TimeoutError("nobody asked postgrey")
            time.sleep(0.02)

    def _unread_octets(self) -> Iterator[int]:
        lines = self._namespace.run(["ss", "-Htn", "state", "connected", f"sport = :{self._port}"]).stdout
        return (int(line.split()[1]) for line in lines.splitlines())

    def ask(self, questions: list[dict[str, str | int]]) -> list[str]:
        """Asks itself what Postfix would ask, in order; returns the actions that it answers.

        `policy_test_time` among a question's attributes is the time, in seconds, that postgrey takes for now.
        """
        with self._namespace.threads(1) as thread:
            return thread.submit(self._ask, questions).result()

    def _ask(self, questions: list[dict[str, str | int]]) -> list[str]:
        actions = []
        with (
            socket.create_connection(("127.0.0.1", self._port), timeout=10) as connection,
            connection.makefile("rwb") as stream,
        ):
            for question in questions:
                attributes = {"request": "smtpd_access_policy", "client_name": "unknown", **question}
                stream.write("".join(f"{name}={value}\n" for name, value in attributes.items()).encode())
                stream.write(b"\n")
                stream.flush()
                actions.append(stream.readline().decode().strip().removeprefix("action="))
                stream.readline()
        return actions

    def table(self) -> dict[str, tuple[int, int]]:
        """When each triplet, as `network/sender/recipient`, was first and last seen, in seconds since 1970.

        Only once it is stopped.
        """
        return self._dump("postgrey.db")

    def clients(self) -> dict[str, tuple[int, int]]:
        """The successes of each client that count for its whitelisting, and the time of the last.

        Only once it is stopped.
        """
        return self._dump("postgrey_clients.db")

    def _dump(self, name: str) -> dict[str, tuple[int, int]]:
        assert not self.running()
        dumped = run_unpacked(
            self._namespace, self._folder, ["perl", "-e", _DUMP, DATABASE, name], SERVERS_ROOT
        )
        words = dumped.stdout.split("\0")[:-1]
        pairs = zip(words[::2], (value.split(",") for value in words[1::2]), strict=True)
        return {key: (int(first), int(last)) for key, (first, last) in pairs}
