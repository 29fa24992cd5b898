class UsageError(Exception):
    """The request itself can't be met; the message says what to change. Commands exit with 4."""
