"""What the tests of properties draw: texts, values of JSON, flipped bits."""

from hypothesis import settings
from hypothesis import strategies as st

QUICK = settings(derandomize=True, database=None, deadline=None, max_examples=60)
TEXT = st.text(max_size=12)
NUMBERS = st.integers() | st.floats() | st.just(10**400)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
)
"""Any value of a JSON file."""


def flipped(content, position, bit):
    """Return bytes with one bit changed."""
    changed = bytearray(content)
    changed[position % len(changed)] ^= 1 << bit
    return bytes(changed)


FLIPS = {"position": st.integers(0, 10**6), "bit": st.integers(0, 7)}
