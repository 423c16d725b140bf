"""Errors of the application's functions, for the log."""

from __future__ import annotations

import os
import sys
import traceback
from types import TracebackType
from typing import List, NoReturn, Optional

_PACKAGE = os.path.dirname(os.path.abspath(__file__))

# Has something in it where this process is a child that the application has forked.
forked: List[bool] = []


def report(where: str, error: BaseException) -> None:
    """Prints an exception that has left a function of the application; stderr goes to the server's log."""
    show(f"quickio: an error in {where}\n{text_of(error)}")


def break_off(why: str) -> NoReturn:
    """The server does what it must not, or the library does: nothing can be saved."""
    try:
        show(f"quickio: {why}")
    finally:
        os._exit(1)


def end_child(error: Optional[BaseException] = None) -> NoReturn:
    """A forked child has come back to the library, whose queues and sockets are its parent's: it ends."""
    code = 0 if error is None else 1
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        code = error.code or 0
    elif error is not None:
        report("a forked child", error)
    exit_now(code)


def exit_now(code: int) -> NoReturn:
    """Exits without waiting for threads of the application."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass  # nobody reads it any more, or the application has put something else there
    os._exit(code & 0xFF)


def show(text: str) -> None:
    """Prints in one piece, so that threads do not mix their lines."""
    try:
        sys.stderr.write(text if text.endswith("\n") else text + "\n")
        sys.stderr.flush()
    except Exception:
        pass  # nobody reads it any more, or the application has put something else there


def text_of(error: BaseException) -> str:
    """The traceback, as Python prints it, from the application's own lines on."""
    try:
        return "".join(traceback.format_exception(type(error), error, _outside(error.__traceback__)))
    except Exception:
        return f"{type(error).__name__}, which cannot be printed"


def _outside(trace: TracebackType | None) -> TracebackType | None:
    """What is below the library's own lines."""
    while trace is not None and os.path.dirname(trace.tb_frame.f_code.co_filename) == _PACKAGE:
        trace = trace.tb_next
    return trace
