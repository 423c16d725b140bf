"""Reports of errors for the server's log, and the exits of the process."""

from __future__ import annotations

import os
import sys
import traceback
from types import TracebackType
from typing import Callable, List, NoReturn, Optional

_PACKAGE = os.path.dirname(os.path.abspath(__file__))

# Not empty in a child process that the application has forked.
forked: List[bool] = []

# The function that logs a text as an error, if there is a server: one record, however many lines it has.
_loggers: List[Callable[[str], object]] = []


def log_errors_by(log: Callable[[str], object]) -> None:
    """Has `report` use a function instead of stderr. Any thread may call the function."""
    _loggers.append(log)


def stop_logging_errors() -> None:
    """Has `report` use stderr again: the loop has ended, and nothing would send what is logged."""
    _loggers.clear()


def report(where: str, error: BaseException) -> None:
    """Logs an exception that a function of the application has raised, as one record of the level `error`."""
    text = f"error in {where}\n{format_error(error)}"
    if _loggers and not forked:
        _loggers[0](text)
    else:
        print_error(f"quickio: {text}")


def abort(why: str) -> NoReturn:
    """Exits at once, after an error of the server or of this library from which the worker cannot recover."""
    try:
        print_error(f"quickio: {why}")
    finally:
        os._exit(1)


def exit_child(error: Optional[BaseException] = None) -> NoReturn:
    """Exits a forked child that has returned to the library, whose queues and sockets belong to the parent."""
    code = 0 if error is None else 1
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        code = error.code or 0
    elif error is not None:
        report("a forked child process", error)
    exit_now(code)


def exit_now(code: int) -> NoReturn:
    """Exits without waiting for threads of the application."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass  # the reader has closed it, or the application has replaced the stream
    os._exit(code & 0xFF)


def print_error(text: str) -> None:
    """Prints a text on stderr in one piece, so that the lines of several threads do not mix."""
    try:
        sys.stderr.write(text if text.endswith("\n") else text + "\n")
        sys.stderr.flush()
    except Exception:
        pass  # the application has replaced or closed stderr


def format_error(error: BaseException) -> str:
    """Returns the traceback as Python prints it, from the application's own lines on."""
    try:
        return "".join(traceback.format_exception(type(error), error, _skip_library(error.__traceback__)))
    except BaseException:
        return f"{safe_name(error)}, which cannot be printed"


def safe_name(error: BaseException) -> str:
    """Returns the name of an exception's class, whatever the application has made of it."""
    try:
        return str(type.__getattribute__(type(error), "__name__"))
    except BaseException:
        return "an exception without a name"


def safe_text(error: BaseException) -> str:
    """Returns the message of an exception. Empty if its `__str__` raises."""
    try:
        return str(error)
    except BaseException:
        return ""


def _skip_library(trace: TracebackType | None) -> TracebackType | None:
    """Returns the traceback without the frames of this library at its beginning."""
    while trace is not None and os.path.dirname(trace.tb_frame.f_code.co_filename) == _PACKAGE:
        trace = trace.tb_next
    return trace
