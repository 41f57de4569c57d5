"""Who the mail servers of a machine are and which TLS libraries they have: of real ones, and of odd ones."""

import os
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from probes.tls_tap.libraries import tls_functions
from probes.tls_tap.linkage import Linkage, linkage_of
from probes.tls_tap.mapped import Identity, TlsLibrary, installed_for, libraries_of, open_library
from probes.tls_tap.roots import real_file
from probes.tls_tap.servers import MailServer, mail_servers
from tests.lab.chasquid import chasquid
from tests.lab.exim import Exim
from tests.lab.network import Network, client_address, server_address
from tests.lab.packages import POSTFIX_ROOT, SERVERS_ROOT, ensure
from tests.lab.postfix import MX, Postfix
from tests.lab.server import MAIL_DOMAIN
from tests.lab.smtplib_client import send_with_smtplib
from tests.probes.tls_tap.made import compiled, libssl_1_1

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="looks into other users' processes")

_SYSTEM = Path("/usr/lib/x86_64-linux-gnu")
ENVELOPE = ("sender@client.test", [f"anybody@{MAIL_DOMAIN}"], b"Subject: hello\r\n\r\nhello\r\n")

# listener PORT [FOLDER]: listens, changes its root if told to, says so on standard output, and waits.
LISTENER = """
#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#ifdef WITH_TLS
int SSL_read(void);
int (*used)(void) = SSL_read;
#endif
int main(int count, char **words) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    address.sin_port = htons(atoi(words[1]));
    int descriptor = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(descriptor, (void *)&address, sizeof address) || listen(descriptor, 5)) return 1;
    if (count > 2 && (chroot(words[2]) || chdir("/"))) return 2;
    write(1, "\\n", 1);
    for (;;) pause();
}
"""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def _running(command: list[str | Path]) -> Iterator[int]:
    """A program that says when it is ready; its number."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def _identity(path: Path) -> Identity:
    status = path.stat()
    return Identity(status.st_dev, status.st_ino)


def _only(ports: set[int]) -> MailServer:
    (server,) = mail_servers(ports).seen
    return server


def _opened(library: TlsLibrary) -> Identity:
    descriptor = open_library(library)
    try:
        status = os.fstat(descriptor)
        tls_functions(descriptor)
    finally:
        os.close(descriptor)
    return Identity(status.st_dev, status.st_ino)


def _linked_listener(folder: Path) -> Path:
    """With the library that `libssl_1_1` makes in that folder, which is found there."""
    options = ["-DWITH_TLS", f"-L{folder}", f"-Wl,-rpath,{folder}", "-l:libssl.so.1.1"]
    return compiled(LISTENER, folder / "listener", options)


def test_this_process_is_a_server_with_openssl() -> None:
    assert ssl.OPENSSL_VERSION
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        server = _only({port})
    assert server.pid == os.getpid()
    assert server.ports == {port}
    assert not server.is_elsewhere
    assert server.why_out_of_reach is None
    (library,) = server.libraries
    assert library.path == str(_SYSTEM / "libssl.so.3")
    assert library.identity == _identity(_SYSTEM / "libssl.so.3") == _opened(library)
    assert mail_servers({port}) == ([], set())


def test_a_descendant_s_library_is_its_server_s(tmp_path: Path) -> None:
    listener = compiled(LISTENER, tmp_path / "listener")
    port = _free_port()
    # The shell becomes the listener, which so has a child that has mapped libssl.
    script = '"$1" -c "import ssl, time; time.sleep(60)" & exec "$2" "$3"'
    with _running(["sh", "-c", script, "sh", sys.executable, listener, str(port)]) as pid:
        try:
            server = _awaited({port}, lambda server: bool(server.mapped))
            (library,) = server.mapped.values()
            assert server.pid == pid
            assert library.pid in server.processes - {pid}
            assert library.name == "libssl.so.3"
        finally:
            for child in mail_servers({port}).seen[0].processes - {pid}:
                os.kill(child, signal.SIGKILL)


def _awaited(ports: set[int], condition: Callable[[MailServer], bool]) -> MailServer:
    deadline = time.monotonic() + 20
    while not condition(server := _only(ports)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return server


@pytest.mark.live
def test_postfix_exim_and_chasquid_in_a_namespace_are_found() -> None:
    ensure()
    with Network() as network:
        folder = network.folder / "chasquid"
        folder.mkdir()
        with (
            Postfix(network.server, network.folder / "postfix", (MX,)),
            Exim(network.server, network.folder / "exim"),
            chasquid(network.server, folder) as chasquid_pid,
        ):
            # Unless a client comes, no process of Postfix' needs TLS.
            servers = _in(network)
            assert set(servers) == {"master", "exim4", "chasquid"}

            postfix = servers["master"]
            assert not postfix.mapped
            assert postfix.why_out_of_reach is None
            names = {library.name: library for library in postfix.installed.values()}
            assert set(names) == {"libssl.so.3"}
            for library in names.values():
                assert _opened(library) == library.identity == _of(POSTFIX_ROOT, library.name)

            (gnutls,) = servers["exim4"].mapped.values()
            assert gnutls.identity == _of(SERVERS_ROOT, "libgnutls.so.30") == _opened(gnutls)

            assert servers["chasquid"].pid == chasquid_pid
            assert servers["chasquid"].why_out_of_reach == "is a Go program: its TLS is out of reach"
            assert not servers["chasquid"].installed

            with network.client.threads(1) as thread:
                thread.submit(
                    send_with_smtplib, (server_address(MX.number), 25), client_address(1), *ENVELOPE, tls=True
                ).result()
            (smtpd,) = _in(network)["master"].mapped.values()
            assert smtpd.identity == _of(POSTFIX_ROOT, "libssl.so.3") == _opened(smtpd)
            assert smtpd in _in(network)["master"].libraries


def _of(root: Path, library: str) -> Identity:
    return _identity(Path(f"{root}{_SYSTEM}", library))


def _in(network: Network) -> dict[str, MailServer]:
    """Those on the watched host, by name. Another lab may run beside."""
    processes = network.server.processes()
    servers = [server for server in mail_servers({25}).seen if server.pid in processes]
    assert all(server.is_elsewhere for server in servers)
    return {server.name: server for server in servers}


def test_a_static_program_is_out_of_reach(tmp_path: Path) -> None:
    port = _free_port()
    with _running([compiled(LISTENER, tmp_path / "listener", ["-static"]), str(port)]):
        server = _only({port})
    assert server.linkage is Linkage.STATIC
    assert server.why_out_of_reach == "is statically linked: its TLS is out of reach"
    assert not server.installed


def test_a_static_program_that_is_put_anywhere_in_memory_is_static_too(tmp_path: Path) -> None:
    port = _free_port()
    with _running([compiled(LISTENER, tmp_path / "listener", ["-static-pie"]), str(port)]) as pid:
        assert linkage_of(pid) is Linkage.STATIC


def test_a_program_that_its_loader_was_told_to_run_is_not_static(tmp_path: Path) -> None:
    listener = compiled(LISTENER, tmp_path / "listener")
    with _running(["/lib64/ld-linux-x86-64.so.2", listener, str(_free_port())]) as pid:
        assert linkage_of(pid) is Linkage.SHARED


def test_what_lies_in_a_container_s_root_is_found_and_nothing_of_the_host_s(tmp_path: Path) -> None:
    """Symlinks are followed as they lead inside."""
    library = libssl_1_1(tmp_path)
    root = tmp_path / "root"
    folder = root / "usr/lib/x86_64-linux-gnu"
    folder.mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    shutil.copy(library, root / "usr/lib/real")
    (folder / "libssl.so.1.1").symlink_to("/usr/lib/real")
    (folder / "libgnutls.so.30").symlink_to(_SYSTEM / "libgnutls.so.30")  # of the host's; here it is itself
    (folder / "libssl.so.3").symlink_to("../../../../../../../../" + str(_SYSTEM / "libssl.so.3"))
    os.mkfifo(folder / "libssl.so.4")
    listener = compiled(LISTENER, tmp_path / "listener")
    with _running([listener, str(port := _free_port()), root]):
        server = _only({port})
        (found,) = server.installed.values()
        assert found.path == "/usr/lib/x86_64-linux-gnu/libssl.so.1.1"
        assert found.identity == _identity(root / "usr/lib/real") == _opened(found)


def test_folders_of_a_root_that_has_lib_beside_usr_lib_are_looked_into(tmp_path: Path) -> None:
    """As Alpine has."""
    library = libssl_1_1(tmp_path)
    root = tmp_path / "root"
    places = {"lib/libssl.so.3", "usr/lib/libssl.so.1.1", "usr/local/lib/libssl.so.4"}
    for place in places:
        (root / place).parent.mkdir(parents=True)
        shutil.copy(library, root / place)
    with _running([compiled(LISTENER, tmp_path / "listener"), str(_free_port()), root]) as pid:
        assert {found.path for found in installed_for(pid)} == {f"/{place}" for place in places}


def test_a_server_where_no_library_is_has_none_to_be_tapped(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    listener = compiled(LISTENER, tmp_path / "listener")
    with _running([listener, str(port := _free_port()), tmp_path / "root"]):
        reason = _only({port}).why_out_of_reach
    assert reason == "runs where neither OpenSSL's nor GnuTLS' library is: its TLS is out of reach"


def test_a_library_is_opened_though_the_server_has_changed_its_root(tmp_path: Path) -> None:
    """As Postfix' smtpd does."""
    library = libssl_1_1(tmp_path)
    (tmp_path / "root").mkdir()
    with _running([_linked_listener(tmp_path), str(port := _free_port()), tmp_path / "root"]):
        (found,) = _only({port}).mapped.values()
        assert found.identity == _identity(library) == _opened(found)
        # Where /proc/PID/map_files is closed to us.
        assert _opened(replace(found, addresses="0-0")) == found.identity


def test_a_library_in_another_mount_namespace_is_opened_there(tmp_path: Path) -> None:
    """Of a program whose root is another file system, as in a container."""
    libssl_1_1(tmp_path)
    _linked_listener(tmp_path)
    script = """
        mount -t tmpfs none "$0/root" && cd "$0/root" && mkdir -p "./$0" old
        for folder in lib lib64 usr; do mkdir $folder && mount --rbind /$folder $folder; done
        cp "$0/listener" "$0/libssl.so.1.1" "./$0"
        pivot_root . old && exec "$0/listener" "$1"
    """
    (tmp_path / "root").mkdir()
    port = _free_port()
    with _running(["unshare", "--mount", "sh", "-ec", script, tmp_path, str(port)]) as pid:
        (found,) = _only({port}).mapped.values()
        inside = Path(f"/proc/{pid}/root{found.path}")
        assert found.path == str(tmp_path / "libssl.so.1.1")
        assert found.identity == _identity(inside) != _identity(tmp_path / "libssl.so.1.1")
        assert _opened(found) == _opened(replace(found, addresses="0-0")) == found.identity


def test_a_replaced_library_is_named_as_such_and_the_mapped_one_is_opened(tmp_path: Path) -> None:
    library = libssl_1_1(tmp_path)
    with _running([_linked_listener(tmp_path), str(port := _free_port())]):
        before = _identity(library)
        shutil.copy(library, tmp_path / "new")
        (tmp_path / "new").replace(library)
        server = _only({port})
        (found,) = server.mapped.values()
        assert found.is_deleted
        assert (found.name, found.identity) == ("libssl.so.1.1", before)
        assert _opened(found) == before
        with pytest.raises(FileNotFoundError, match="gone, or another file now"):
            open_library(replace(found, addresses="0-0"))
        # Those that start from now on have another.
        assert {library.name for library in server.installed.values()} >= {"libssl.so.3"}


def test_a_library_of_a_process_that_has_ended_is_gone(tmp_path: Path) -> None:
    libssl_1_1(tmp_path)
    with _running([_linked_listener(tmp_path), str(_free_port())]) as pid:
        (found,) = libraries_of(pid)
        (installed, *_) = installed_for(pid)
    assert libraries_of(pid) == []
    assert installed_for(pid) == []
    assert linkage_of(pid) is None
    with pytest.raises(FileNotFoundError):
        open_library(installed)
    # Where it was is known, and that it is the same; so nothing is lost.
    assert _opened(found) == found.identity
    (tmp_path / "libssl.so.1.1").unlink()
    with pytest.raises(FileNotFoundError):
        open_library(found)


def test_one_file_below_two_overlays_is_one_and_a_copy_is_another(tmp_path: Path) -> None:
    """As two containers of one image have it."""
    lower = tmp_path / "lower"
    lower.mkdir()
    libssl_1_1(lower)
    mounts = []
    try:
        for name in ("one", "two"):
            for part in ("", "/upper", "/work", "/merged"):
                (tmp_path / f"{name}{part}").mkdir()
            folders = f"lowerdir={lower},upperdir={tmp_path}/{name}/upper,workdir={tmp_path}/{name}/work"
            mounts.append(tmp_path / name / "merged")
            subprocess.run(["mount", "-t", "overlay", "none", "-o", folders, mounts[-1]], check=True)
        one, two = (_real(mount / "libssl.so.1.1") for mount in mounts)
        assert (mounts[0] / "libssl.so.1.1").stat().st_dev != (mounts[1] / "libssl.so.1.1").stat().st_dev
        assert one == two
        os.utime(mounts[1] / "libssl.so.1.1", ns=(1, 1))  # the overlay makes a copy to write to
        assert _real(mounts[1] / "libssl.so.1.1") != one
        with _running([*_preloaded(mounts[0] / "libssl.so.1.1"), str(port := _free_port())]):
            (found,) = _only({port}).mapped.values()
            assert _opened(found)
            assert _opened(replace(found, addresses="0-0"))
    finally:
        for mount in mounts:
            subprocess.run(["umount", mount], check=False)


def _preloaded(library: Path) -> list[str | Path]:
    listener = compiled(LISTENER, library.parents[2] / "listener")
    return ["env", f"LD_PRELOAD={library}", listener]


def _real(path: Path) -> tuple[int, ...]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return real_file(descriptor)
    finally:
        os.close(descriptor)


def test_names_that_only_look_like_a_tls_library_are_none(tmp_path: Path) -> None:
    library = libssl_1_1(tmp_path)
    names = ["libssl3.so", "mylibssl.so.3", "libgnutls-dane.so.0"]
    taken = ["libssl.so.1.1.old", "libssl-1a2b3c4d.so.3"]  # set aside by hand, and of a Python wheel
    for name in names + taken:
        shutil.copy(library, tmp_path / name)
    preloaded = " ".join(str(tmp_path / name) for name in names + taken)
    listener = compiled(LISTENER, tmp_path / "listener")
    with _running(["env", f"LD_PRELOAD={preloaded}", listener, str(_free_port())]) as pid:
        assert {found.name for found in libraries_of(pid)} == set(taken)


def test_who_maps_many_libraries_does_not_have_all_of_them_tapped(tmp_path: Path) -> None:
    library = libssl_1_1(tmp_path)
    paths = [str(shutil.copy(library, tmp_path / f"libssl.so.{number}")) for number in range(20)]
    listener = compiled(LISTENER, tmp_path / "listener")
    with _running(["env", f"LD_PRELOAD={' '.join(paths)}", listener, str(_free_port())]) as pid:
        assert len(libraries_of(pid)) == 8


def test_processes_that_come_and_go_are_nothing_to_raise_for() -> None:
    """A thousand that end while one looks."""
    script = "i=0; while [ $i -lt 1000 ]; do (exec sleep 0.01) & i=$((i+1)); done; wait"
    port = _free_port()
    with socket.create_server(("127.0.0.1", port)), subprocess.Popen(["sh", "-c", script]) as crowd:
        looked = 0
        while crowd.poll() is None or looked == 0:
            assert _only({port}).pid == os.getpid()
            looked += 1


def test_two_processes_with_one_socket_are_one_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        os.set_inheritable(listener.fileno(), True)
        child = subprocess.Popen(["sleep", "60"], pass_fds=[listener.fileno()])
        try:
            server = _only({listener.getsockname()[1]})
        finally:
            child.kill()
            child.wait()
    assert server.pid == os.getpid()
    assert server.processes >= {os.getpid(), child.pid}


def test_who_has_a_connection_and_does_not_listen_is_no_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    with client, accepted:
        assert mail_servers({port}) == ([], set())


def test_init_that_listens_for_others_is_not_everybody() -> None:
    """As systemd does for a socket unit. In a pid namespace of its own this one is the first process."""
    code = """
import socket, subprocess
from probes.tls_tap.servers import mail_servers
listener = socket.create_server(("127.0.0.1", 0))
child = subprocess.Popen(["sleep", "60"])
print(mail_servers({listener.getsockname()[1]}).seen[0].processes)
child.kill()
"""
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "{1}\n"


GO_SECTION = '__attribute__((section(".go.buildinfo"), used)) char mark[32];'
GO_NOTE = r"""
__asm__(".pushsection .note.go.buildid, \"a\", @note\n"
        ".long 4, 4, 4\n .ascii \"Go\\0\\0\"\n .long 0\n"
        ".popsection");
"""


@pytest.mark.parametrize("mark", [pytest.param(GO_SECTION, id="section"), pytest.param(GO_NOTE, id="note")])
def test_either_mark_of_go_s_linker_tells_a_go_program(mark: str, tmp_path: Path) -> None:
    """chasquid has both; other ways to build leave one."""
    with _running([compiled(mark + LISTENER, tmp_path / "listener"), str(_free_port())]) as pid:
        assert linkage_of(pid) is Linkage.GO


def test_a_program_with_a_huge_note_takes_no_memory(tmp_path: Path) -> None:
    note = GO_NOTE.replace(".long 4, 4, 4", ".long 4, 0x7fffffff, 4").replace("Go", "No")
    listener = compiled(note + LISTENER, tmp_path / "listener")
    os.truncate(listener, 1 << 40)  # the rest is a hole
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with _running([listener, str(_free_port())]) as pid:
        assert linkage_of(pid) is None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 20_000  # kB


def test_who_may_not_look_learns_that_somebody_listens(tmp_path: Path) -> None:
    code = "from probes.tls_tap.servers import mail_servers; print(mail_servers({%d}))"
    with _running([compiled(LISTENER, tmp_path / "listener"), str(port := _free_port())]):
        drop = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
        said = subprocess.run(
            [*drop, sys.executable, "-c", code % port], capture_output=True, text=True, check=True
        )
    assert said.stdout == f"MailServers(seen=[], unseen={{{port}}})\n"
