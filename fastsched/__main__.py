"""``python -m fastsched`` is the command ``fastsched``."""

from .cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
