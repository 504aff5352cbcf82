"""Checks by name: each passes or fails by itself, and the count is told at the end."""

import traceback
from collections.abc import Callable


class Report:
    """Runs checks and counts them."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0

    def check(self, name: str, check: Callable[[], str | None]) -> None:
        """Runs a check; it fails by raising, and may return what it saw."""
        try:
            seen = check()
        except Exception as error:
            self.failed += 1
            where = traceback.extract_tb(error.__traceback__)[-1]
            print(f"FAIL  {name}: {error!r} ({where.name}:{where.lineno})", flush=True)
        else:
            self.passed += 1
            print(f"ok    {name}" + (f": {seen}" if seen else ""), flush=True)


def same(seen: object, expected: object, what: str) -> None:
    """Fails unless the two are equal."""
    if seen != expected:
        raise AssertionError(f"{what} is {seen!r}, expected {expected!r}")
