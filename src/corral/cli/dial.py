"""`corral system dial-stdio`: the daemon's connection on standard input and output, which `ssh://` addresses run."""

from __future__ import annotations

from corral.cli.command import Command, Session


def _dial(session: Session) -> int:
    from corral.cli.relay import relay
    from corral.cli.transport import Hijacked, connect

    relay(Hijacked(connect(session.globals.endpoint()), b"", None), raw=True, stdin=True)
    return 0


DIAL = Command(_dial, "Connect standard input and output to the daemon; not meant to be run by hand")
