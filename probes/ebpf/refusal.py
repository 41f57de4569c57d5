"""Why a program could not be compiled or loaded: what clang, libbcc and the kernel said, in one line.

Where their words leave it open, it is tried: no version number decides.
"""

import mmap
import platform
import re
import resource
from ctypes import CDLL
from os import close
from typing import Final

from probes.ebpf.loading import LIBBPF, Build
from probes.probe import ProbeUnavailable

# linux/bpf.h
_ARRAY: Final = 2
_RING_BUFFER: Final = 27

_WORDS: Final = 240
"""Characters of the verifier's that are shown: chosen as two of its longest lines."""

_VERDICT: Final = re.compile(r"^processed \d+ insns")
"""Begins the line behind the verifier's last words."""
_STEP: Final = re.compile(
    r"""\d+:            # an instruction, or the state before it: `12: (bf) r2 = r7`, `12: R0=inv1`
    | ;                 # the line of the source
    | from\ \d+\ to     # where a branch led
    | R\d+\w*=          # what is in the registers; but not `R4 min value is negative`
    | (last_idx|regs=|parent|propagating|mark_precise|func\#|HINT)""",
    re.VERBOSE,
)
"""A line of its log that says where it was, and not why it went no further."""
_MAP: Final = re.compile(r"^could not open bpf map: \w+, error: (.*)$", re.MULTILINE)
_PROGRAM: Final = re.compile(r"^bpf: Failed to load program: (.*)$", re.MULTILINE)

_FORBIDDEN: Final = "Operation not permitted"
_INVALID: Final = "Invalid argument"


class RejectedError(Exception):
    """By the kernel's verifier, whose last words are the message: it may take another program."""

    def unavailable(self, build: Build) -> ProbeUnavailable:
        """For when there is no other."""
        return ProbeUnavailable(
            f"the kernel's verifier rejects the {build.what}: {self}",
            f"report it as a bug, with what `smtp-horizon doctor` says, {build.instead}",
        )


def why_refused(said: str, error: str, build: Build) -> ProbeUnavailable | RejectedError:
    """`said`: on standard error; `error`: by bcc's exception."""
    if (words := verifiers_words(said)) is not None:
        return RejectedError(words)
    refused = _MAP.search(said) or _PROGRAM.search(said)
    why = "" if refused is None else refused[1]
    if why == _FORBIDDEN or "super-user privileges" in error:
        return _forbidden(build)
    if why == _INVALID and not _can_make(_RING_BUFFER):
        return ProbeUnavailable(
            f"the {build.what} can't be loaded: this kernel has no BPF ring buffer",
            f"it needs Linux 5.8 or newer with BPF (here: {platform.release()}), {build.instead}",
        )
    if refused is not None:
        return ProbeUnavailable(
            f"the {build.what} can't be loaded: {refused[0]}",
            f"report it as a bug, with what `smtp-horizon doctor` says, {build.instead}",
        )
    return ProbeUnavailable(
        f"the {build.what} can't be compiled: {first_error(said) or first_error(error)}",
        f"run `apt-get install --reinstall python3-bpfcc`, {build.instead}",
    )


def verifiers_words(said: str) -> str | None:
    """The last that the verifier said before it gave up; None where it was not the verifier."""
    lines = [line.strip() for line in said.splitlines()]
    ends = [place for place, line in enumerate(lines) if _VERDICT.match(line)]
    if not ends:
        return None
    words: list[str] = []
    for line in reversed(lines[: ends[-1]]):
        if line and _STEP.match(line):
            break
        if line:
            words.append(line)
    return "; ".join(reversed(words[:2]))[:_WORDS] or "it does not say why"


def first_error(text: str) -> str:
    """The first line that names an error, or else the first of all."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[0] if lines else "")


def _forbidden(build: Build) -> ProbeUnavailable:
    """Before Linux 5.11 what is too much to be locked into memory is refused in the same word."""
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit != resource.RLIM_INFINITY and _can_make(_ARRAY):
        return ProbeUnavailable(
            f"the {build.what} can't be loaded: it needs more locked memory than {limit // 1024} kB",
            "raise the limit (systemd: LimitMEMLOCK=infinity; a shell: ulimit -l unlimited; a container: "
            f"--ulimit memlock=-1), {build.instead}",
        )
    return ProbeUnavailable(
        "the kernel forbids BPF here (a container, seccomp, a limit on locked memory or lockdown)",
        f"run it on the host or with CAP_BPF in the first user namespace, {build.instead}",
    )


def _can_make(kind: int) -> bool:
    """Whether the kernel makes a map of that kind, the smallest that there is."""
    key, value, entries = (0, 0, mmap.PAGESIZE) if kind == _RING_BUFFER else (4, 8, 1)
    descriptor: int = CDLL(LIBBPF).bpf_map_create(kind, None, key, value, entries, None)
    if descriptor < 0:
        return False
    close(descriptor)
    return True
