"""The error message for a Python that is too old. This file parses on any Python, so it has no annotations."""

import json
import os
import sys


def refuse():  # type: ignore
    """Reports the required version of Python, to the server or to the program that imports this package."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    why = "Python 3.9 or newer is needed, but %s is Python %s; set `python` to a newer one" % (sys.executable, version)
    if "QUICKIO_WORKER" not in os.environ:
        raise ImportError(why)
    os.write(int(os.environ["QUICKIO_WORKER"]), (json.dumps({"failed": why}) + "\n").encode("ascii"))
    os._exit(1)
