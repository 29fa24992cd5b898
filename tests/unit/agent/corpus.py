"""Real input that is kept, and how it is damaged for tests that may be given anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hypothesis import strategies as st

FIXTURES = Path(__file__).parents[2] / "fixtures/agent"


def kept(pattern: str) -> dict[str, bytes]:
    """Return the fixtures of the agent by their path."""
    return {
        str(path.relative_to(FIXTURES)): path.read_bytes()
        for path in sorted(FIXTURES.glob(pattern))
    }


@st.composite
def damaged(draw: st.DrawFn, samples: Sequence[bytes]) -> bytes:
    """One of the samples, with pieces overwritten, cut out, put in or taken from another one."""
    data = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        piece = draw(st.binary(max_size=8))
        if draw(st.booleans()):
            other = draw(st.sampled_from(samples))
            begin = draw(st.integers(0, len(other)))
            piece = other[begin : begin + draw(st.integers(0, 64))]
        # What stays as long as it was gets further into a decoder.
        gone = draw(st.sampled_from([len(piece), 0, 1, len(data)]))
        data[at : at + gone] = piece
    return bytes(data)
