"""Property tests of tensors: tensors survive a round trip, and any input is parsed or rejected."""

import json
from contextlib import suppress

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from handlers.core.errors import BadRequest, InvalidRequest, TooLarge, TooManyItems
from handlers.core.open_inference import parse_infer_request
from handlers.core.open_inference_tensors import parse_values
from handlers.core.tensor import NUMPY_TYPES, Tensor, pack_bytes, unpack_bytes

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
ITEMS = st.lists(st.binary(max_size=12), max_size=6)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=6),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=6), values, max_size=3),
    max_leaves=12,
)
DATATYPES = st.sampled_from(["BYTES", *NUMPY_TYPES]) | JSON_VALUES
INPUTS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("image") | JSON_VALUES,
        "datatype": DATATYPES,
        "shape": st.lists(st.integers(-1, 4), max_size=5) | JSON_VALUES,
        "data": JSON_VALUES,
        "parameters": st.fixed_dictionaries(
            {}, optional={"binary_data_size": st.integers(-1, 9) | JSON_VALUES}
        )
        | JSON_VALUES,
    },
)
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "inputs": st.lists(INPUTS, max_size=3) | JSON_VALUES,
        "outputs": st.lists(st.fixed_dictionaries({"name": st.just("label")}), max_size=2) | JSON_VALUES,
        "parameters": JSON_VALUES,
    },
)


@st.composite
def arrays(draw):
    datatype = draw(st.sampled_from(list(NUMPY_TYPES)))
    finite = {"allow_nan": False, "allow_infinity": False} if datatype.startswith("FP") else {}
    dtype = NUMPY_TYPES[datatype]
    return datatype, draw(hnp.arrays(dtype, SHAPES, elements=hnp.from_dtype(dtype, **finite)))


@pytest.mark.parametrize("form", ["json", "binary"])
@hypothesis.given(arrays())
def test_array_is_read_back(form, typed_array):
    datatype, array = typed_array
    tensor = Tensor("image", datatype, array.shape, array.ravel().tolist())
    head, content = (tensor.as_dict(), None) if form == "json" else tensor.as_binary()
    values = parse_values(
        "image", json.loads(json.dumps(head)), None if content is None else memoryview(content)
    )
    assert (values.datatype, values.shape) == (datatype, array.shape)
    result = values.array("image")
    assert result.dtype == array.dtype
    assert np.array_equal(result, array)


@hypothesis.given(
    st.lists(st.text(max_size=12).filter(lambda text: text.encode("utf-8", "ignore").decode() == text))
)
def test_texts_are_read_back(texts):
    tensor = Tensor("text", "BYTES", (len(texts),), texts)
    assert parse_values("text", json.loads(json.dumps(tensor.as_dict())), None).data == texts
    head, content = tensor.as_binary()
    assert parse_values("text", head, memoryview(content)).data == [text.encode() for text in texts]


@hypothesis.given(ITEMS)
def test_packed_items_are_unpacked(items):
    assert unpack_bytes(memoryview(pack_bytes(items)), len(items)) == items


@hypothesis.given(st.binary(max_size=40) | ITEMS.map(pack_bytes), st.integers(0, 8))
def test_any_bytes_are_unpacked_whole_or_rejected(content, count):
    with suppress(ValueError):
        items = unpack_bytes(memoryview(content), count)
        assert len(items) == count
        assert pack_bytes(items) == content


@hypothesis.given(INPUTS, st.none() | st.binary(max_size=20))
def test_any_input_is_parsed_or_rejected(tensor, content):
    with suppress(InvalidRequest, TooManyItems):
        values = parse_values("image", tensor, None if content is None else memoryview(content))
        assert len(values.data) == int(np.prod(values.shape, dtype=object))


@hypothesis.given(MESSAGES, st.none() | st.binary(max_size=20), st.booleans())
def test_any_message_is_parsed_or_raises_a_client_error(message, content, grpc):
    binary = None if content is None else memoryview(content)
    with suppress(BadRequest, TooLarge):
        assert len(parse_infer_request(message, ("image", "data"), grpc, binary, ("top_k",)).payloads) > 0
