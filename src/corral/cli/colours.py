"""Colours, where somebody sees them: on a terminal, unless `NO_COLOR` is set (no-color.org) or the terminal is dumb."""

from __future__ import annotations

import os

from corral.cli.terminal import is_terminal

_RESET = "\x1b[0m"
BOLD, FAINT, RED, GREEN, YELLOW, BLUE, MAGENTA, CYAN = "1", "2", "31", "32", "33", "34", "35", "36"
WHEEL = (CYAN, YELLOW, GREEN, MAGENTA, BLUE, "96", "93", "92", "95", "94")  # to tell neighbours apart


def wanted(fd: int = 1) -> bool:
    """Whether what is written there may have colours."""
    return is_terminal(fd) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, *codes: str) -> str:
    """The text in a colour; as it is without one."""
    shown = ";".join(code for code in codes if code)
    return f"\x1b[{shown}m{text}{_RESET}" if shown else text
