"""What is shown of what the verifier said: ends of its logs, as these kernels wrote them."""

import pytest

from probes.ebpf.refusal import verifiers_words

LINUX_5_10 = """\
bpf: Failed to load program: Permission denied
1985: (85) call bpf_skb_load_bytes#26
 R0=mem(id=0,ref_obj_id=33,off=0,imm=0) R1_w=ctx(id=0,off=0,imm=0) R4=inv(id=0,umax_value=64)
invalid access to memory, mem_size=144 off=80 size=0
R3 min value is outside of the allowed memory range
processed 1226 insns (limit 1000000) max_states_per_insn 1 total_states 59 peak_states 59 mark_read 31

"""
LINUX_5_10_SPECULATING = """\
parent didn't have regs=10 stack=0 marks
last_idx 537 first_idx 503
regs=10 stack=0 before 537: (b7) r4 = 0
from 538 to 539 (speculative execution): R0=mem(id=0,ref_obj_id=17,off=0,imm=0) R1=inv0 R2=inv4
539: (bf) r3 = r8
543: (85) call bpf_skb_load_bytes#26
R4 min value is negative, either use unsigned or 'var &= const'
processed 422 insns (limit 1000000) max_states_per_insn 0 total_states 36 peak_states 36 mark_read 33
"""
LINUX_6_1 = """\
bpf: Failed to load program: Bad address
292: (77) r1 >>= 32                   ; R1_w=1357
293: (25) if r1 > 0x6 goto pc+3
The sequence of 8193 jumps is too complex.
processed 91891 insns (limit 1000000) max_states_per_insn 7 total_states 1432 peak_states 1080 mark_read 33

"""
LINUX_6_18 = """\
bpf: Failed to load program: Permission denied
;  @ event.c:51
1223: (85) call bpf_skb_load_bytes#26
R4 invalid zero-sized read: u64=[0,4294967295]
processed 695 insns (limit 1000000) max_states_per_insn 1 total_states 41 peak_states 41 mark_read 0

HINT: Prior to Linux 4.20, the verifier knew less.
"""


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            LINUX_5_10,
            "invalid access to memory, mem_size=144 off=80 size=0; "
            "R3 min value is outside of the allowed memory range",
        ),
        (LINUX_5_10_SPECULATING, "R4 min value is negative, either use unsigned or 'var &= const'"),
        (LINUX_6_1, "The sequence of 8193 jumps is too complex."),
        (LINUX_6_18, "R4 invalid zero-sized read: u64=[0,4294967295]"),
    ],
)
def test_its_last_words_are_shown(said: str, words: str) -> None:
    assert verifiers_words(said) == words


@pytest.mark.parametrize(
    "said",
    [
        "",
        "could not open bpf map: events, error: Operation not permitted\n",
        "bpf: Failed to load program: Operation not permitted\n\n",
        "filter.c:92:1: error: unknown type name 'integer'\n1 error generated.\n",
    ],
)
def test_what_others_said_is_not_taken_for_its_words(said: str) -> None:
    assert verifiers_words(said) is None


def test_they_have_a_bound() -> None:
    words = verifiers_words("0: (b7) r0 = 0\n" + "why " * 10_000 + "\nprocessed 1 insns\n")
    assert words is not None
    assert 0 < len(words) < 300
