"""What a Python that is too old can still say. It has to parse everywhere, so it has no annotations."""

import json
import os
import sys


def refuse():  # type: ignore
    """Tells the server, or whoever imports this, that another Python is needed."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    why = "Python 3.9 or newer is needed: %s is %s" % (sys.executable, version)
    if "QUICKIO_WORKER" not in os.environ:
        raise ImportError(why)
    os.write(int(os.environ["QUICKIO_WORKER"]), (json.dumps({"failed": why}) + "\n").encode("ascii"))
    os._exit(1)
