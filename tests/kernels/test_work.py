"""Which account of the virtual machine is a fault."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.kernels.guest import FLOOD
from tests.kernels.work import judged

CAP_NET_RAW = 1 << 13
CAP_BPF = 1 << 39

THREAD = {
    "Uid": "65534\t65534\t65534\t65534",
    "Gid": "65534\t65534\t65534\t65534",
    "Groups": "",
    "NoNewPrivs": "1",
    "CapPrm": "0000000000000000",
    "CapEff": "0000000000000000",
    "CapBnd": "0000000000000000",
}
OPENER = {"Uid": "0\t0\t65534\t0", "Gid": "0\t0\t65534\t0", **dict.fromkeys(("CapPrm", "CapBnd"), "2")}
GOOD: dict[str, Any] = {
    "kernel": "6.1.0-57-amd64",
    "status": 0,
    "said": "INFO watching mail0\n",
    "confined": {"user": 1.0, "capabilities": 1.0, "system_calls": 1.0},
    "processes": [
        THREAD | {"Name": "smtp-horizon", "is_watch": True},
        THREAD | OPENER | {"Name": "horizon-opener", "is_watch": False},
        THREAD | {"Name": "horizon-tap", "is_watch": False, "CapPrm": f"{1 << 19:x}"},
        THREAD | {"Name": "horizon-metrics", "is_watch": False},
    ],
    "filters": ["full"],
    "left_out_of_large": 205.0,
    "link": [0.0, 1.0],
    "records": 81,
    "sessions": 81,
    "against_clients": [],
    "not_whole": [],
    "channels": {"cleartext": 45, "starttls": 26, "implicit_tls": 10},
    "six": 30,
    "tagged": 8,
    "tapped": {"postfix": 22, "exim": 12},
    "servers": {"postfix": {"logged": 61, "against_log": []}, "exim": {"logged": 20, "against_log": []}},
    "unneeded": 42_048.0,
    "dropped": 0.0,
    "mismatches": 0.0,
    "tap_lost": 0.0,
    "handshakes": float(FLOOD),
    "incomplete": 0.0,
}


def faults(change: Callable[[dict[str, Any]], object]) -> list[str]:
    account = copy.deepcopy(GOOD)
    change(account)
    return list(judged(account))


def test_an_account_in_which_everything_is_right_has_no_fault() -> None:
    assert faults(lambda account: None) == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("error", "Traceback ...", "the check itself failed"),
        ("status", 1, "ended with status 1"),
        ("said", "Traceback (most recent call last)", "watch said"),
        ("filters", ["plain"], "not that it is the full one"),
        ("filters", [], "not that it is the full one"),
        ("dropped", 3.0, "3 packets dropped"),
        ("mismatches", 1.0, "otherwise from inside"),
        ("tap_lost", 1.0, "events of the TLS tap lost"),
        ("incomplete", 1.0, "not seen whole"),
        ("left_out_of_large", 0.0, "were left out"),
        ("handshakes", FLOOD - 1.0, "19,999 handshakes"),
        ("unneeded", 7.0, "only 7 packets"),
        ("link", [1.0, 1.0], "while the link was down"),
        ("link", [0.0, 0.0], "while the link was down"),
        ("records", 80, "80 records of 81"),
        ("sessions", 59, "81 records of 59"),
        ("against_clients", ["helo: ..."], "against the clients: helo"),
        ("not_whole", ["{'gap_bytes': 1}"], "not seen whole"),
        ("channels", {"cleartext": 81}, "no session by starttls"),
        ("six", 0, "over IPv6"),
        ("tagged", 0, "over 802.1Q"),
        ("tapped", {"postfix": 22, "exim": 0}, "no session with exim whole"),
        ("servers", {"exim": {"logged": 0, "against_log": []}}, "exim logged no session"),
        ("servers", {"exim": {"logged": 1, "against_log": ["tls: ..."]}}, "against exim's log: tls"),
        ("confined", {"user": 0.0}, "says no by user"),
        ("confined", {"capabilities": 0.0}, "says no by capabilities"),
        ("processes", GOOD["processes"][:3], "only these are there"),
    ],
)
def test_each_thing_that_is_amiss_is_told(name: str, value: object, words: str) -> None:
    assert words in "\n".join(faults(lambda account: account.update({name: value})))


@pytest.mark.parametrize("name", ["CapPrm", "CapEff", "CapBnd"])
@pytest.mark.parametrize("process", range(4))
def test_a_capability_too_many_is_a_fault_in_every_process(name: str, process: int) -> None:
    found = faults(lambda account: account["processes"][process].update({name: f"{CAP_NET_RAW:x}"}))
    assert [line for line in found if "has capabilities that it should not" in line]


@pytest.mark.parametrize(
    ("kernel", "is_right"), [("5.10.0-46-amd64", True), ("5.19.0-1", False), ("6.1.0-57", False)]
)
def test_watch_keeps_cap_bpf_only_before_linux_5_19(kernel: str, is_right: bool) -> None:
    def change(account: dict[str, Any]) -> None:
        account["kernel"] = kernel
        account["processes"][0]["CapPrm"] = f"{CAP_BPF:x}"
        account["confined"]["capabilities"] = 0.0

    assert (faults(change) == []) is is_right


@pytest.mark.parametrize(
    ("name", "value"),
    [("Uid", "0\t0\t0\t0"), ("Gid", "65534\t0\t0\t0"), ("Groups", "0 4"), ("NoNewPrivs", "0")],
)
def test_a_thread_that_is_root_in_part_is_a_fault(name: str, value: str) -> None:
    assert faults(lambda account: account["processes"][0].update({name: value}))
