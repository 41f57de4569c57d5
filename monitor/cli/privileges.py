"""How `watch` gives its privileges away, once all is open that wants them.

Capabilities, no_new_privs and the filter of system calls belong to threads: threads must be started after it.
"""

import logging
import os
from typing import Final, NamedTuple

from monitor.cli.system_calls import FilterRefusedError, deny_what_is_not_needed, why_unavailable
from monitor.metrics.labels import Confinement
from monitor.rights import ROOT, User
from probes import capabilities
from probes.capabilities import Capability, Needs

_FROM_FILES: Final = (
    "dumpcap has its privileges from its file, and would have none under a filter;"
    " start it as root, or with CAP_NET_ADMIN and CAP_NET_RAW"
)

_LOG: Final = logging.getLogger(__name__)


class Standing(NamedTuple):
    """What a process is and may do, after it has given up the rest."""

    user: User
    capabilities: tuple[Capability, ...]
    why_not_filtered: str | None
    """Its system calls; None where they are."""

    @property
    def confinement(self) -> dict[Confinement, bool]:
        return {
            Confinement.USER: self.user.uid != ROOT,
            Confinement.CAPABILITIES: not self.capabilities,
            Confinement.SYSTEM_CALLS: self.why_not_filtered is None,
        }

    def log(self) -> None:
        kept = " and ".join(f"CAP_{capability.name}" for capability in self.capabilities)
        _LOG.info("running as %s, with %s", self.user.name, kept or "no capability")
        if self.user.uid == ROOT:
            _LOG.warning("still root: what is root's is open to whoever takes over the parser; see --user")
        if self.why_not_filtered is not None:
            _LOG.warning("system calls are not filtered: %s", self.why_not_filtered)


def give_up(user: User, needs: Needs) -> Standing:
    """Goes on as this user, with no capability but those needed."""
    # It imports what filters, which perhaps lies where only root may look.
    why_not_filtered = why_unavailable()
    is_all_here = needs.capabilities <= capabilities.permitted()
    if os.geteuid() == ROOT and user.uid != ROOT:
        _become(user, needs)
    capabilities.keep_only(needs.capabilities, for_programs=bool(needs.programs))
    capabilities.forbid_dumps()
    if needs.programs and not is_all_here:
        # As for a member of the group wireshark: dumpcap has its capabilities from its file.
        return Standing(user, _permitted(), _FROM_FILES)
    capabilities.forbid_new_privileges()
    if why_not_filtered is None:
        try:
            deny_what_is_not_needed(needs)
        except FilterRefusedError as reason:
            why_not_filtered = str(reason)
    return Standing(user, _permitted(), why_not_filtered)


def _permitted() -> tuple[Capability, ...]:
    return tuple(map(Capability, sorted(capabilities.permitted())))


def _become(user: User, needs: Needs) -> None:
    capabilities.stay_permitted_as_another_user()
    groups = {_group_that_may_run(program) for program in needs.programs}
    os.setgroups(sorted(group for group in groups if group is not None))
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)


def _group_that_may_run(program: str) -> int | None:
    """None where everybody may. Debian lets the group wireshark alone run dumpcap, if root says so."""
    status = os.stat(program)
    return None if status.st_mode & 0o001 else status.st_gid
