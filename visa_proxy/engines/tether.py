"""`python -m visa_proxy.engines.tether PARENT COMMAND …`: become COMMAND, and end when process PARENT does, however it ends.

A supervisor that is killed outright cannot stop its children; the kernel can (Linux, PR_SET_PDEATHSIG). Elsewhere only an orderly
end stops them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    parent, command = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we were tethered
            sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
