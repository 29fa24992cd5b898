"""Lines that say what a slow command is doing, with the seconds since it began."""

import time

import click

_STARTED = time.monotonic()


def say(text: str) -> None:
    """Write one progress line to standard error, so that standard output stays clean."""
    click.echo(f"[{time.monotonic() - _STARTED:4.0f} s] {text}", err=True)
