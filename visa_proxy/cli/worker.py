"""`python -m visa_proxy.cli.worker`: one worker of `visa-proxy serve --workers N`, which starts it and tells it what to do."""

from __future__ import annotations

import sys

from visa_proxy.cli.logs import set_up_logs
from visa_proxy.errors import VisaError
from visa_proxy.server.workers.child import work


def main() -> None:
    """Ends with 2 when the app cannot be built."""
    set_up_logs()
    try:
        work(sys.stdin.buffer)
    except VisaError as error:
        sys.stderr.write(f"visa-proxy: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
