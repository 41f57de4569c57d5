"""jgreylist and its kin: whatever happens, they have decided before it."""

import pytest

from monitor.greylisters import TlsEnds
from monitor.side import Side
from tests.monitor.greylisters.sight import GREETING, MAIL, RCPT, STARTTLS, midstream, said, seen_by
from tests.monitor.sessions.wire import Wire
from tests.monitor.tls.real_tls import Transcript


@pytest.mark.parametrize("tls_ends", list(TlsEnds))
def test_nothing_takes_a_session_out_of_its_reach(tls_ends: TlsEnds, tls_mail: Transcript) -> None:
    wires = [
        said(GREETING + MAIL + RCPT),
        Wire().open().say(GREETING + STARTTLS).play(tls_mail).close(),
        Wire(465).open().play(tls_mail).close(),
        Wire().open().reset(Side.CLIENT),
        Wire().open(),
        midstream(said(GREETING + MAIL)),
        said("S: 554 no\n"),
    ]
    assert [seen_by("jgreylist", wire, tls_ends) for wire in wires] == ["decided"] * len(wires)
