"""The screen of `corral top`, on blessed: drawing, keys, and the programs that a key runs in its place.

Whatever ends it (a key, Ctrl-C, a signal, a terminal that went away), the terminal is as it was before.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

import blessed

from corral.cli import colours, toptable
from corral.cli.problems import CliError
from corral.cli.topwatch import Watch
from corral.cli.transport import Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from corral.cli.endpoint import Endpoint
    from corral.cli.toptable import Row

_FRAME_S = 0.25
_HELP = "arrows select   c m n i p a sort   l logs   s shell   x stop   q quit"
_SHELL = "if command -v bash >/dev/null 2>&1; then exec bash; else exec sh; fi"


class Ended(Exception):
    """A signal wants the program to end."""


def show(endpoint: Endpoint) -> int:
    """Run until the user has seen enough."""
    terminal = _terminal()
    screen = _Screen(terminal, endpoint)
    with _signals():
        try:
            with terminal.fullscreen(), terminal.cbreak(), terminal.hidden_cursor():
                screen.run()
        except Ended as end:
            return 128 + int(end.args[0])
    return 0


def _terminal() -> Any:
    """The terminal; without colours blessed would not move its cursor either, so they are left out here."""
    plain = os.environ.pop("NO_COLOR", None)
    try:
        return blessed.Terminal()
    finally:
        if plain is not None:
            os.environ["NO_COLOR"] = plain


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """A signal that would end the program leaves through the terminal's clean-up."""

    def end(number: int, frame: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)  # the clean-up is not to be interrupted
        raise Ended(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)}
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Screen:
    def __init__(self, terminal: Any, endpoint: Endpoint) -> None:
        self._terminal = terminal
        self._endpoint = endpoint
        self._watch = Watch(endpoint)
        self._sort = "c"
        self._backwards = False
        self._selected = ""  # the id, so that the same container stays selected when the order changes
        self._message = ""
        self._to_stop: Row | None = None
        self._drawn = ""

    def run(self) -> None:
        """Draw and obey until a key ends it."""
        while True:
            rows = toptable.ordered(self._watch.rows(), self._sort, self._backwards)
            if rows and self._selected not in {row.id for row in rows}:
                self._selected = rows[0].id
            self._draw(rows)
            key = self._terminal.inkey(timeout=_FRAME_S)
            if not key and not self._is_there():
                return
            if key and not self._obey(key, rows):
                return

    def _is_there(self) -> bool:
        """Whether somebody still looks at the terminal."""
        try:
            os.get_terminal_size(1)
        except OSError:
            return False
        return os.isatty(0)

    # --- drawing ---------------------------------------------------------------------------------------------

    def _draw(self, rows: list[Row]) -> None:
        terminal = self._terminal
        width, height = terminal.width, terminal.height
        lines = [_fit(self._watch.problem or f"{self._endpoint.host}  {toptable.totals(rows)}", width)]
        lines.append(terminal.reverse(toptable.heading(width, self._sort)))
        index = next((index for index, row in enumerate(rows) if row.id == self._selected), 0)
        for number in toptable.window(len(rows), index, height - 3):
            line = toptable.line(rows[number], width)
            lines.append(self._marked(line) if number == index else line)
        lines += [""] * (height - 1 - len(lines))
        lines = [*lines[: height - 1], _fit(self._question() or self._message or _HELP, width)]
        frame = terminal.home + "\n".join(f"{line}{terminal.clear_eol}" for line in lines)
        if frame != self._drawn:
            terminal.stream.write(frame)
            terminal.stream.flush()
            self._drawn = frame

    def _marked(self, line: str) -> str:
        terminal = self._terminal
        return str(terminal.bold_white_on_blue(line) if colours.wanted() else terminal.reverse(line))

    def _question(self) -> str:
        return f"Stop {self._to_stop.name}? y, or any other key for no" if self._to_stop else ""

    # --- keys ------------------------------------------------------------------------------------------------

    def _obey(self, key: Any, rows: list[Row]) -> bool:
        """Do what a key says; False to end."""
        if self._to_stop is not None:
            row, self._to_stop = self._to_stop, None
            if key == "y":
                self._stop(row)
            return True
        self._message = ""
        index = next((index for index, row in enumerate(rows) if row.id == self._selected), 0)
        if key == "q" or key.name == "KEY_ESCAPE":
            return False
        if key in toptable.SORT_KEYS:
            self._backwards = not self._backwards if key == self._sort else False
            self._sort = str(key)
        elif key.name in _MOVES or key in _MOVES:
            moved = index + _MOVES[key.name if key.name in _MOVES else str(key)]
            self._selected = rows[max(0, min(len(rows) - 1, moved))].id if rows else ""
        elif rows and key == "l":
            self._give_way("logs", "-f", "--tail", "200", rows[index].id)
        elif rows and (key == "s" or key.name == "KEY_ENTER"):
            self._give_way("exec", "-it", rows[index].id, "sh", "-c", _SHELL)
        elif rows and key == "x":
            self._to_stop = rows[index]
        return True

    def _stop(self, row: Row) -> None:
        def work() -> None:
            try:
                Client(self._endpoint).post(f"/containers/{row.id}/stop")
                self._message = f"{row.name} has stopped"
            except (CliError, OSError) as error:
                self._message = str(error)

        self._message = f"stopping {row.name} ..."
        threading.Thread(target=work, daemon=True).start()

    def _give_way(self, *words: str) -> None:
        """Run another command of ours on the terminal as it was, and come back."""
        terminal = self._terminal
        terminal.stream.write(terminal.exit_fullscreen + terminal.normal_cursor)
        terminal.stream.flush()
        cooked = _cooked()
        before = signal.signal(signal.SIGINT, lambda number, frame: None)  # Ctrl-C is for the command
        try:
            with cooked:
                status = subprocess.run([*_ourselves(self._endpoint), *words], check=False).returncode
                if status not in (0, 130):
                    self._message = f"{words[0]} ended with status {status}"
        finally:
            signal.signal(signal.SIGINT, before)
            terminal.stream.write(terminal.enter_fullscreen + terminal.hide_cursor)
            self._drawn = ""


_MOVES = {
    "KEY_UP": -1,
    "KEY_DOWN": 1,
    "k": -1,
    "j": 1,
    "KEY_PGUP": -10,
    "KEY_PGDOWN": 10,
    "KEY_HOME": -(10**6),
    "KEY_END": 10**6,
}


def _fit(text: str, width: int) -> str:
    return text[:width].ljust(width)


@contextlib.contextmanager
def _cooked() -> Iterator[None]:
    """The terminal's line discipline for ordinary programs, in the middle of `cbreak`."""
    import termios

    mode = termios.tcgetattr(0)
    plain = termios.tcgetattr(0)
    plain[3] |= termios.ICANON | termios.ECHO | termios.ISIG
    termios.tcsetattr(0, termios.TCSADRAIN, plain)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, mode)


def _ourselves(endpoint: Endpoint) -> list[str]:
    """This client, for the same daemon."""
    words = [sys.executable, "-I", os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")]
    words += ["-H", endpoint.host]
    if endpoint.tls is not None:
        files = {"tlscacert": endpoint.tls.ca, "tlscert": endpoint.tls.cert, "tlskey": endpoint.tls.key}
        words += ["--tlsverify" if endpoint.tls.verify else "--tls"]
        words += [word for name, path in files.items() if path for word in (f"--{name}", path)]
    return words
