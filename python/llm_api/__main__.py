"""``python -m llm_api``."""

import sys

from llm_api.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
