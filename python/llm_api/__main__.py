"""``python -m llm_api``."""

import signal
import sys

# It would end the process before the server is there to heed it; until then it waits.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})

from llm_api.cli import main  # noqa: E402

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
