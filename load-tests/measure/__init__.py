"""What `load-tests/compare` is made of: gateways, load, accounting, report. Standard library only."""


class Failure(Exception):
    """The comparison cannot go on; the text says what was wrong and where to look."""
