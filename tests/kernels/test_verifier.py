"""What is said of the verifiers' answers; and a real verifier's answer to a program that it must refuse."""

import os
import platform
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kernels.recording import FULL, INDEX, PLAIN, TAP, Code, Recording
from tests.kernels.verifier import MOST_WALKED, Recorded, Verdict, compiled_loader, not_attached, verdicts

GOOD = Verdict("6.1", "full", "hand_up_watched", 3_000, MOST_WALKED, "", "", "")
REFUSED = replace(
    GOOD, refused="Permission denied", attaching=None, words="1: (bf)\nR3 min value is outside\n"
)
SOCKET_FILTER = 1
RETURN_ZERO = struct.pack("<BBhi", 0xB7, 0, 0, 0) + struct.pack("<BBhi", 0x95, 0, 0, 0)
READ_NOWHERE = struct.pack("<BBhi", 0x79, 0x20, 0, 0) + struct.pack("<BBhi", 0x95, 0, 0, 0)  # r0 = *(u64 *)r2


def test_a_program_that_loads_within_the_limit_is_no_fault() -> None:
    assert GOOD.faults == []
    assert not_attached([GOOD]) == []


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (replace(GOOD, walked=MOST_WALKED + 1), "700,001"),
        (replace(GOOD, walked=-1), "did not say"),
        (REFUSED, "rejected (Permission denied)"),
    ],
)
def test_what_is_amiss_is_told_with_the_kernel_and_the_program(verdict: Verdict, words: str) -> None:
    assert verdict.faults[0].startswith("6.1: full: hand_up_watched")
    assert words in verdict.faults[0]


def test_a_rejection_comes_with_the_verifiers_last_words() -> None:
    assert REFUSED.faults[-1] == "    | R3 min value is outside"


def test_a_filter_that_no_socket_takes_is_a_fault_unless_another_of_its_set_leads_to_it() -> None:
    large = replace(GOOD, attaching="Cannot allocate memory")
    assert not_attached([large]) == ["6.1: full can't be attached to a socket: Cannot allocate memory"]
    assert not_attached([large, replace(GOOD, program="stub")]) == []
    assert not_attached([large, replace(GOOD, name="plain")])
    assert not_attached([large, replace(GOOD, kernel="6.12")])
    assert not_attached([replace(GOOD, attaching=None)]) == []


@pytest.mark.live
@pytest.mark.skipif(os.geteuid() != 0, reason="loading BPF programs needs root")
def test_this_kernel_refuses_what_it_must_and_takes_the_rest(tmp_path: Path) -> None:
    tap = TAP + platform.release()
    for folder, programs in (
        ("whole", {FULL: READ_NOWHERE, PLAIN: RETURN_ZERO, tap: RETURN_ZERO}),
        ("confined", {PLAIN: RETURN_ZERO}),
    ):
        (tmp_path / folder).mkdir()
        names = {}
        for number, (name, instructions) in enumerate(programs.items()):
            names[name] = [str(number)]
            recording = Recording(programs={"program": Code(SOCKET_FILTER, instructions, [])})
            recording.write(tmp_path / folder / f"{number}.json")
        (tmp_path / folder / INDEX).write_text(str(names).replace("'", '"'))
    found = verdicts([], Recorded(tmp_path / "whole", tmp_path / "confined"), tmp_path)
    by_name = {one.name: one for one in found}
    assert set(by_name) == {"full", "plain", "TLS tap", "plain, without CAP_PERFMON"}
    assert "R2 !read_ok" in "\n".join(by_name["full"].faults)
    assert [one.faults for one in found if one.name != "full"] == [[], [], []]
    assert {one.walked for one in found if one.name != "full"} == {2}
    assert {one.attaching for one in found} == {None, ""}
    assert compiled_loader(tmp_path).exists()
