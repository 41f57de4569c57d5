"""The stand-in for bcc says what the kernel refused as bcc does: so the loader understands it."""

import importlib.util
import os
import struct
from pathlib import Path
from types import ModuleType

import pytest

from probes.ebpf import loader
from probes.ebpf.loading import Build, ProgramKind
from probes.ebpf.refusal import RejectedError
from probes.probe import ProbeUnavailable
from tests.kernels.recording import Code, MapLayout, Recording, key
from tests.kernels.root import STAND_IN
from tests.kernels.test_verifier import READ_NOWHERE, SOCKET_FILTER

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="loading BPF programs needs root"),
]

TEXT = "a text that was compiled elsewhere\n"
COMPILED = f'#line 1 "source.c"\n{TEXT}'
"""What the loader makes of it."""
ARRAY = 2  # linux/bpf.h
SET_R0 = struct.pack("<BBhi", 0xB7, 0, 0, 0)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("stand_in_for_bcc", STAND_IN / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RECORDINGS", tmp_path)
    return module


def build(tmp_path: Path, recording: Recording) -> Build:
    source = tmp_path / "source.c"
    source.write_text(TEXT)
    recording.write(tmp_path / f"{key(COMPILED.encode(), [])}.json")
    return Build(
        sources=[str(source)],
        constants={},
        ports=[],
        programs={"program": ProgramKind.SOCKET_FILTER},
        maps=[],
        capabilities=[],
        whose="test",
        what="test's filter",
        purpose="to test",
        instead="or not",
    )


@pytest.mark.parametrize("instructions_before", [0, 10_000])
def test_a_rejection_is_understood_however_long_the_verifiers_words_are(
    stand_in: ModuleType, tmp_path: Path, instructions_before: int
) -> None:
    code = Code(SOCKET_FILTER, SET_R0 * instructions_before + READ_NOWHERE, [])
    layout = MapLayout(ARRAY, 4, 8, 1, 0)
    wanted = build(tmp_path, Recording(maps=[layout], names={"counts": 0}, programs={"program": code}))
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(RejectedError, match=r"^R2 !read_ok$"):
        loader._load(stand_in, wanted, {})
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_map_that_the_kernel_does_not_make_is_named(stand_in: ModuleType, tmp_path: Path) -> None:
    maps = [MapLayout(ARRAY, 4, 8, 1, 0), MapLayout(ARRAY, 4, 8, 0, 0)]
    wanted = build(tmp_path, Recording(maps=maps, names={"counts": 0, "flows": 1}))
    with pytest.raises(ProbeUnavailable, match="could not open bpf map: flows, error: Invalid argument"):
        loader._load(stand_in, wanted, {})
