"""Errors of the application's functions, for the log."""

from __future__ import annotations

import os
import sys
import traceback
from types import TracebackType
from typing import NoReturn

_PACKAGE = os.path.dirname(os.path.abspath(__file__))


def report(where: str, error: BaseException) -> None:
    """Prints an exception that has left a function of the application; stderr goes to the server's log."""
    show(f"quickio: an error in {where}\n{text_of(error)}")


def break_off(why: str) -> NoReturn:
    """The server does what it must not, or the library does: nothing can be saved."""
    show(f"quickio: {why}")
    os._exit(1)


def show(text: str) -> None:
    """Prints in one piece, so that threads do not mix their lines."""
    try:
        sys.stderr.write(text if text.endswith("\n") else text + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # nobody reads it any more


def text_of(error: BaseException) -> str:
    """The traceback, as Python prints it, from the application's own lines on."""
    return "".join(traceback.format_exception(type(error), error, _outside(error.__traceback__)))


def _outside(trace: TracebackType | None) -> TracebackType | None:
    """What is below the library's own lines."""
    while trace is not None and os.path.dirname(trace.tb_frame.f_code.co_filename) == _PACKAGE:
        trace = trace.tb_next
    return trace
