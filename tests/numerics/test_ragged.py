import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard_kernels.ragged import join


@settings(deadline=None)  # the first example may compile the kernel
@given(st.lists(st.integers(-5, 5), max_size=20), st.data())
def test_slices_are_joined(tokens, data):
    """Naive twin: Python's own slices."""
    places = st.integers(0, len(tokens))
    spans = [sorted(span) for span in data.draw(st.lists(st.tuples(places, places)))]
    found = join(
        np.asarray(tokens, dtype=np.int32),
        np.asarray([start for start, _ in spans], dtype=np.int64),
        np.asarray([end - start for start, end in spans], dtype=np.int64),
    )
    assert found.dtype == np.int32
    assert found.tolist() == [token for start, end in spans for token in tokens[start:end]]
