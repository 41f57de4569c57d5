"""Where a library's functions are: held against what binutils says, and against files of ill will."""

import os
import re
import resource
import struct
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probes.tls_tap.elf import NoUsableElfError
from probes.tls_tap.hooks import HOOKS, Kind
from probes.tls_tap.libraries import TlsFunctions, tls_functions
from tests.probes.tls_tap.made import compiled, libssl_1_1

_SYSTEM = Path("/usr/lib/x86_64-linux-gnu")
OPENSSL = _SYSTEM / "libssl.so.3"
GNUTLS = _SYSTEM / "libgnutls.so.30"


def _by_binutils(library: Path) -> dict[str, int]:
    """Addresses by nm, and which of the file's bytes they are by readelf."""
    readelf = subprocess.run(["readelf", "-lW", library], capture_output=True, text=True, check=True).stdout
    loads = [
        tuple(int(number, 16) for number in found)
        for found in re.findall(r"^ +LOAD +(0x\w+) (0x\w+) 0x\w+ (0x\w+) ", readelf, re.MULTILINE)
    ]
    found = {}
    nm = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True)
    for line in nm.stdout.splitlines():
        value, kind, name = line.split()[-3:]
        if kind == "T":
            address = int(value, 16)
            (within,) = [
                offset + address - start for offset, start, size in loads if start <= address < start + size
            ]
            found[name.partition("@")[0]] = within
    return found


def _check(library: Path, kind: Kind, soname: str) -> None:
    functions = tls_functions(library)
    truth = _by_binutils(library)
    assert functions == TlsFunctions(
        kind, soname, {name: truth[name] for name in HOOKS[kind] if name in truth}
    )
    assert set(functions.offsets) == set(HOOKS[kind])


def test_debians_openssl_is_read_as_binutils_reads_it() -> None:
    _check(OPENSSL, Kind.OPENSSL, "libssl.so.3")


def test_debians_gnutls_is_read_as_binutils_reads_it() -> None:
    _check(GNUTLS, Kind.GNUTLS, "libgnutls.so.30")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param([], id="as Debian links"),
        pytest.param(["-Wl,--hash-style=sysv"], id="with the old hash table only"),
        pytest.param(["-Wl,-Ttext-segment=0x400000"], id="not for address 0"),
        pytest.param(["-Wl,-z,noseparate-code"], id="code and tables in one segment"),
    ],
)
def test_openssl_1_1_is_read_however_it_was_linked(options: list[str], tmp_path: Path) -> None:
    _check(libssl_1_1(tmp_path, options), Kind.OPENSSL, "libssl.so.1.1")


@pytest.mark.parametrize("where", [pytest.param(0, id="none"), pytest.param(64, id="what are none")])
def test_a_library_with_no_sound_section_headers_is_read_as_the_loader_reads_it(
    where: int, tmp_path: Path
) -> None:
    library = libssl_1_1(tmp_path)
    whole = tls_functions(library)
    content = bytearray(library.read_bytes())
    struct.pack_into("<Q", content, 40, where)  # e_shoff
    library.write_bytes(content)
    assert tls_functions(library) == whole


def test_a_descriptor_does_as_well_as_a_path_and_stays_open() -> None:
    descriptor = os.open(OPENSSL, os.O_RDONLY)
    try:
        assert tls_functions(descriptor) == tls_functions(OPENSSL)
        os.fstat(descriptor)
    finally:
        os.close(descriptor)


def test_what_is_only_asked_for_is_not_exported(tmp_path: Path) -> None:
    program = "int SSL_read(void); int gnutls_record_recv(void); int f(void) { return SSL_read(); }"
    # The newer table has only what is exported.
    library = compiled(program, tmp_path / "liba.so", ["-shared", "-fPIC", "-Wl,--hash-style=sysv"])
    with pytest.raises(NoUsableElfError, match="neither OpenSSL's nor GnuTLS'"):
        tls_functions(library)


def test_a_program_with_the_address_of_a_library_s_function_does_not_export_it(tmp_path: Path) -> None:
    """Its list has the name with an address, though the function is elsewhere."""
    libssl_1_1(tmp_path)
    program = "int SSL_read(void); int (*used)(void) = SSL_read; int main(void) { return used != SSL_read; }"
    linking = ["-no-pie", "-fno-pic", "-Wl,--hash-style=sysv", f"-L{tmp_path}", "-l:libssl.so.1.1"]
    with pytest.raises(NoUsableElfError, match="neither OpenSSL's nor GnuTLS'"):
        tls_functions(compiled(program, tmp_path / "server", linking))


@pytest.mark.parametrize(
    ("at", "value"),
    [
        pytest.param(4, struct.pack("<I", 4), id="where nothing may be run"),
        pytest.param(8, struct.pack("<Q", 1 << 30), id="behind the file's end"),
    ],
)
def test_what_is_exported_and_can_t_be_called_is_no_function(at: int, value: bytes, tmp_path: Path) -> None:
    """Once the segment of the code says something else: its flags, its place in the file."""
    library = libssl_1_1(tmp_path)
    content = bytearray(library.read_bytes())
    (headers,) = struct.unpack_from("<Q", content, 32)
    code = next(
        header
        for header in range(headers, headers + 56 * 16, 56)
        if struct.unpack_from("<II", content, header) == (1, 5)  # PT_LOAD, to read and to run
    )
    content[code + at : code + at + len(value)] = value
    library.write_bytes(content)
    with pytest.raises(NoUsableElfError, match="neither OpenSSL's nor GnuTLS'"):
        tls_functions(library)


def test_other_files_are_no_libraries_and_that_is_said(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(NoUsableElfError, match="no regular file"):
        tls_functions(fifo)
    with pytest.raises(NoUsableElfError, match="no regular file"):
        tls_functions("/dev/zero")
    with pytest.raises(NoUsableElfError, match="no ELF file"):
        tls_functions("/etc/passwd")
    with pytest.raises(NoUsableElfError, match="neither"):
        tls_functions(_SYSTEM / "libc.so.6")
    with pytest.raises(FileNotFoundError):
        tls_functions(tmp_path / "none")


def test_a_library_of_another_machine_is_refused(tmp_path: Path) -> None:
    library = libssl_1_1(tmp_path)
    content = bytearray(library.read_bytes())
    content[4] = 1  # EI_CLASS: 32 bits
    library.write_bytes(content)
    with pytest.raises(NoUsableElfError, match="another machine or word size"):
        tls_functions(library)


@pytest.fixture(scope="module")
def small_libssl(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """5 kB, of which much matters."""
    folder = tmp_path_factory.mktemp("small")
    options = ["-Wl,-z,noseparate-code", "-Wl,--strip-all"]
    return libssl_1_1(folder, options).read_bytes()


def _try(library: Path) -> None:
    """Reads it, whatever that comes to: quick, and nothing outside the file."""
    before = time.process_time()
    try:
        functions = tls_functions(library)
    except NoUsableElfError:
        pass
    else:
        size = library.stat().st_size
        assert all(0 <= offset < size for offset in functions.offsets.values())
        assert len(functions.soname) <= 64
    assert time.process_time() - before < 2


@pytest.mark.thorough
def test_a_library_cut_short_anywhere_is_refused_or_read(small_libssl: bytes, tmp_path: Path) -> None:
    library = tmp_path / "libssl.so.1.1"
    for length in range(len(small_libssl)):
        library.write_bytes(small_libssl[:length])
        _try(library)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8))))
def test_a_library_with_any_bytes_changed_is_refused_or_read(
    changes: list[tuple[float, bytes]], small_libssl: bytes, tmp_path: Path
) -> None:
    content = bytearray(small_libssl)
    for where, what in changes:
        at = int(where * len(content))
        content[at : at + len(what)] = what
    library = tmp_path / "libssl.so.1.1"
    library.write_bytes(content)
    _try(library)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage=st.binary(max_size=4096))
def test_garbage_behind_an_elf_header_is_refused_or_read(garbage: bytes, tmp_path: Path) -> None:
    library = tmp_path / "libssl.so.3"
    library.write_bytes(OPENSSL.read_bytes()[:64] + garbage)
    _try(library)


def test_tables_that_claim_to_be_huge_take_neither_time_nor_memory(tmp_path: Path) -> None:
    """A sparse file of a terabyte, in which everything that counts something says as many as it can."""
    library = libssl_1_1(tmp_path)
    readelf = subprocess.run(["readelf", "-SW", library], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\.gnu\.hash +GNU_HASH +\w+ (\w+)", readelf)
    assert found is not None
    table = int(found[1], 16)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for at in (table, table + 8):  # how many buckets, and words of the Bloom filter
        content = bytearray(library.read_bytes())
        struct.pack_into("<I", content, at, 0xFFFF_FFFF)
        hostile = library.with_name("hostile")
        hostile.write_bytes(content)
        os.truncate(hostile, 1 << 40)
        with pytest.raises(NoUsableElfError, match="larger than those of any library"):
            tls_functions(hostile)
        _try(hostile)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 20_000  # kB
