import numpy as np
import pyarrow as pa

from steelyard.core.arrow import offsets_of, repeat_text, to_floats, to_ints, to_mask


def test_nulls_get_the_value_that_each_helper_promises():
    assert to_mask(pa.array([True, None, False])).tolist() == [True, False, False]
    assert to_ints(pa.array([3, None], pa.int8()), null=-1).tolist() == [3, -1]
    floats = to_floats(pa.chunked_array([[1], [None]], pa.int64()))
    np.testing.assert_array_equal(floats, [1.0, np.nan])
    assert repeat_text("x", 2).to_pylist() == ["x", "x"]


def test_types_do_not_depend_on_the_column():
    for values in (pa.array([1], pa.uint8()), pa.chunked_array([pa.array([1], pa.int32())])):
        assert to_ints(values).dtype == np.int64
        assert to_floats(values).dtype == np.float64


def test_offsets_begin_at_zero_and_end_at_the_sum():
    assert offsets_of([2, 0, 3]).tolist() == [0, 2, 2, 5]
    assert offsets_of([]).tolist() == [0]
    assert offsets_of(np.array([1], dtype=np.int32)).dtype == np.int64
