class LabError(Exception):
    """The lab can't do what was asked; the message says what to change."""
