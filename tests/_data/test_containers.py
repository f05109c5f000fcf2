"""Containers that users have: read alike, or refused with what to give instead."""

import array
import collections
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image
from scipy import sparse
from torch.utils.data import DataLoader, Subset, TensorDataset

from sknas._data.containers import read_container
from sknas.exceptions import InvalidParameterError

ROWS = np.array([[0, 1, 200], [3, 4, 5]], dtype=np.uint8)


class Foreign:
    """An array of another library, with one protocol alone."""

    def __init__(self, values):
        self.values = values


class WithArray(Foreign):
    def __array__(self, dtype=None, copy=None):
        return self.values


class WithDlpack(Foreign):
    def __dlpack__(self, **options):
        return torch.from_numpy(self.values).__dlpack__(**options)

    def __dlpack_device__(self):
        return torch.from_numpy(self.values).__dlpack_device__()


class OnDevice(Foreign):
    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion is not allowed.")


class Rows(collections.abc.Sequence, Foreign):
    """A column of a dataset, which reads its elements when they are asked for."""

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return self.values[index]


class Table:
    """A dataset that can be turned into a frame."""

    column_names = ("a",)

    def to_pandas(self):
        return pd.DataFrame(ROWS)


TENSORS = {
    "plain": lambda t: t,
    "with gradient": lambda t: t.float().requires_grad_(),
    "parameter": lambda t: torch.nn.Parameter(t.double()),
    "result of a network": lambda t: t.float().requires_grad_() * 1,
    "bfloat16": lambda t: t.bfloat16(),
    "float16": lambda t: t.half(),
    "int64": lambda t: t.long(),
    "int16": lambda t: t.short(),
    "transposed twice": lambda t: t.T.contiguous().T,
    "lazily negated": lambda t: torch.complex(t.double(), -t.double()).conj().imag,
    "quantised": lambda t: torch.quantize_per_tensor(t.float(), 1.0, 0, torch.quint8),
}
CONTAINERS = {
    **{
        f"tensor, {name}": lambda a, f=f: f(torch.tensor(a))
        for name, f in TENSORS.items()
    },
    "list of tensors": lambda a: list(torch.tensor(a).float().requires_grad_()),
    "tuple of arrays": tuple,
    "lists of tensors": lambda a: [list(row) for row in torch.tensor(a)],
    "lists": np.ndarray.tolist,
    "array of objects": lambda a: pd.Series(list(a)).to_numpy(),
    "series of tensors": lambda a: pd.Series(list(torch.tensor(a))),
    "deque": lambda a: collections.deque(a.tolist()),
    "lazy sequence": Rows,
    "array protocol": WithArray,
    "dlpack": WithDlpack,
    "buffer": lambda a: memoryview(np.ascontiguousarray(a)),
    "masked array without mask": np.ma.masked_array,
    "subclass": lambda a: a.view(np.recarray),
}


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.filterwarnings("ignore:.*quantize")  # torch is dropping it
def test_containers_of_the_same_values_are_read_alike(name):
    given = CONTAINERS[name](ROWS)
    read = read_container("X", given)
    assert_array_equal(np.asarray(read, dtype=np.float64), ROWS)
    assert not isinstance(read, torch.Tensor | np.ma.MaskedArray)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    values=st.lists(st.floats(-6e4, 6e4), min_size=1, max_size=5),
    dtype=st.sampled_from(
        [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int64]
    ),
    depth=st.integers(0, 2),
)
def test_no_dtype_of_tensors_changes_a_value(values, dtype, depth):
    tensor = torch.tensor(values, dtype=torch.float64).to(dtype)
    given = tensor
    for _ in range(depth):
        given = [given, given]
    read = np.asarray(read_container("y", given), dtype=np.float64)
    assert_array_equal(read.reshape(-1, len(values))[0], tensor.double().numpy())


UNCHANGED = [
    *(pd.DataFrame(ROWS), pd.Series([1, 2]), pd.Index([1, 2]), pd.Categorical(["a"])),
    *(pl.DataFrame(ROWS), pl.Series([1, 2]), pl.LazyFrame({"a": [1]})),
    *(
        pa.table({"a": [1]}),
        pa.array([1, 2]),
        sparse.eye(2).tocsr(),
        sparse.dok_array((2, 2)),
    ),
    *(["a", None], ROWS.tolist(), ROWS, np.array(["a", None]), [], 1.0),
]


@pytest.mark.parametrize("given", UNCHANGED, ids=lambda given: type(given).__name__)
def test_what_readers_know_is_not_touched(given):
    name = "y" if isinstance(given, list | float) else "X"
    assert read_container(name, given) is given


# ------------------------------------------------------------------------ missing cells


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        (np.array([1, 2]), np.nan),
        (np.array([1.5, 2], dtype=np.float32), np.nan),
        (np.array(["2020-01-01", "2021-01-01"], dtype="M8[D]"), np.datetime64("NaT")),
        (np.array([3, 4], dtype="m8[s]"), np.timedelta64("NaT")),
        (np.array(["a", "b"]), None),
        (np.array([True, False]), None),
        (np.array([1, "b"], dtype=object), None),
    ],
)
def test_masked_values_are_missing(values, missing):
    before = np.ma.masked_array(values, [False, True])
    read = read_container("y", before)
    assert read[0] == values[0]
    assert (read[1] is None) if missing is None else np.isnan(read[1])
    assert before.data[1] == values[1]  # the user's array stays
    (row,) = read_container("y", [before])
    assert_array_equal(row.astype(str), read.astype(str))


# ------------------------------------------------------------------------------- images


def pictures(mode="L", size=(4, 3), n=2):
    return [Image.new(mode, size, i) for i in range(n)]


@pytest.mark.parametrize(
    ("mode", "dtype", "shape"),
    [
        ("1", bool, (3, 4)),
        ("L", np.uint8, (3, 4)),
        ("I", np.int32, (3, 4)),
        ("I;16", np.uint16, (3, 4)),
        ("F", np.float32, (3, 4)),
        ("LA", np.uint8, (3, 4, 2)),
        ("RGB", np.uint8, (3, 4, 3)),
        ("RGBA", np.uint8, (3, 4, 4)),
    ],
)
@pytest.mark.parametrize("wrap", [list, tuple, pd.Series, Rows])
def test_images_of_pil_become_one_array(mode, dtype, shape, wrap):
    read = read_container("X", wrap(pictures(mode)))
    assert read.dtype == dtype
    assert read.shape == (2, *shape)
    assert_array_equal(read[1], np.asarray(pictures(mode)[1]))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            [*pictures(), *pictures(size=(5, 3))],
            "X must hold images of one size, got (width, height) (4, 3) and (5, 3): "
            "bring all to one, with image.resize((4, 3)).",
        ),
        (
            [*pictures(), *pictures("RGB")],
            "X holds images of mode 'L' and 'RGB': convert all to one of grey or RGB "
            "pixels, with image.convert('RGB').",
        ),
        *[
            (
                pictures(mode),
                f"X holds images of mode '{mode}': convert all to one of grey or RGB "
                "pixels, with image.convert('RGB').",
            )
            for mode in ("P", "CMYK", "HSV", "YCbCr")
        ],
        ([*pictures(), None], "X holds images and NoneType objects: give images."),
        (
            pictures()[0],
            "X can't be read, it is of type Image: give a list of images, [image].",
        ),
        (
            [(pictures()[0], 1), (pictures()[1], 0)],
            "X is a list of pairs (row, target): give X, y = zip(*X).",
        ),
        (
            pd.DataFrame({"photo": pictures()}),
            "Column 'photo' of X holds images: give them alone, as a list, "
            "X['photo'].tolist().",
        ),
    ],
)
def test_images_that_cannot_be_one_array_are_refused(images, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read_container("X", images)


def test_images_that_cannot_be_decoded_are_refused():
    stored = io.BytesIO()
    Image.new("RGB", (40, 40)).save(stored, "PNG")
    truncated = Image.open(io.BytesIO(stored.getvalue()[:60]))
    closed = Image.new("L", (4, 4))
    closed.close()
    for image, problem in ((truncated, "truncated"), (closed, "closed image")):
        with pytest.raises(ValueError, match=rf"^X holds .* can't be read .*{problem}"):
            read_container("X", [image])


# ----------------------------------------------------------------------------- refusals

DATASET = TensorDataset(torch.ones(4, 2), torch.ones(4))
NESTED = [torch.ones(2), torch.ones(3)]
READ = "read the file first, for example with pandas.read_csv"
REFUSED = {
    "TensorDataset": (DATASET, "give its tensors, X, y = dataset.tensors"),
    "Subset": (
        Subset(DATASET, [0, 1]),
        "give its rows, X, y = zip(*(dataset[i] for i in range(len(dataset))))",
    ),
    "DataLoader": (DataLoader(DATASET), "X, y = map(torch.cat, zip(*loader))"),
    "Table": (Table(), "give a frame, X.to_pandas()"),
    "dict": ({"a": [1, 2]}, "give a frame, pandas.DataFrame(X)"),
    "set": ({1, 2}, "it has no order, give a list"),
    "generator": ((row for row in ROWS), "give list(X)"),
    "zip": (zip(ROWS, ROWS, strict=True), "give list(X)"),
    "str": ("data.csv", f"('data.csv'): {READ}"),
    "bytes": (b"GIF89a", READ),
    "PosixPath": (Path("a.csv"), READ),
    "StringIO": (io.StringIO("a"), READ),
    "object": (object(), "give an array, a frame or a list of rows"),
    "type": (int, "give an array, a frame or a list of rows"),
}
FAULTY = {
    "None": (None, "X is None: give an array, a frame or a list of rows."),
    "files": ([Path("a.png"), "b.png"], "X is a list of text or files, such as "),
    "records": ([{"a": 1}, {"a": 2}], "X is a list of dicts: give a frame, "),
    "structured": (pd.DataFrame(ROWS).to_records(), "X is a structured array: "),
    "bytes": (np.zeros(3, "V4"), "X holds values of dtype |V4, "),
    "complex": (torch.ones(20, 20, dtype=torch.cfloat), "Complex data not supported: "),
    "complex array": (
        np.ones((20, 20), complex),
        "part of X, which is of dtype complex128,",
    ),
    "meta": (torch.ones(2, 2, device="meta"), "is on the device 'meta'"),
    "sparse": (torch.eye(2).to_sparse(), "torch.sparse_coo: give X.to_dense()."),
    "row": ([torch.eye(2).to_sparse()], "torch.sparse_coo: give X.to_dense()."),
    "nested": (
        torch.nested.nested_tensor(NESTED, layout=torch.jagged),
        "nested: give X.to_padded_tensor(float('nan')).",
    ),
    "device": (OnDevice(ROWS), "(TypeError: Implicit conversion is not allowed): "),
}


@pytest.mark.parametrize("make", [torch.tensor, np.array])
def test_arrays_of_no_dimensions_in_cells_are_their_numbers(make):
    frame = pd.DataFrame(
        {"a": [make(1.5), None, make(3)], "b": ["x", "y", "z"], "c": [1, 2, 3]},
        index=[4, 4, 5],
    )
    right = frame.assign(a=pd.Series([1.5, None, 3], frame.index, object))
    read = read_container("X", frame)
    pd.testing.assert_frame_equal(read, right)
    assert type(frame.iat[0, 0]) is type(make(1.5))  # the caller's is unchanged
    read = read_container("X", frame.to_numpy())
    pd.testing.assert_frame_equal(pd.DataFrame(read), pd.DataFrame(right.to_numpy()))
    unchanged = frame[["b", "c"]]
    assert read_container("X", unchanged) is unchanged


@pytest.mark.parametrize("kind", REFUSED)
def test_other_objects_are_refused_with_what_to_give(kind):
    given, advice = REFUSED[kind]
    with pytest.raises(InvalidParameterError) as caught:
        read_container("X", given)
    text = str(caught.value)
    assert text.startswith(f"X can't be read, it is of type {type(given).__name__}")
    assert text.endswith(f"{advice}.")


@pytest.mark.parametrize("kind", FAULTY)
def test_values_that_cannot_be_read_are_refused(kind):
    given, part = FAULTY[kind]
    with pytest.raises(ValueError, match=re.escape(part)) as caught:
        read_container("X", given)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:The PyTorch API of MaskedTensors")
def test_masked_tensors_are_refused():
    mask = torch.tensor([True, False])
    masked = torch.masked.masked_tensor(torch.ones(2), mask)
    with pytest.raises(InvalidParameterError, match=r"is masked: give y\.to_tensor"):
        read_container("y", masked)


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ({0: 1.0}, "give its values, list(sample_weight.values())"),
        ("balanced", "('balanced'): give a list or an array, one value per row"),
        (sparse.eye(2).tocsr(), "give sample_weight.toarray()"),
        (iter([1]), "give list(sample_weight)"),
    ],
)
def test_advice_for_other_arguments_than_x(given, advice):
    with pytest.raises(InvalidParameterError) as caught:
        read_container("sample_weight", given)
    assert str(caught.value).endswith(f"{advice}.")


def test_values_of_a_buffer_are_read():
    assert read_container("y", array.array("d", [1.0, 2.0])) == [1.0, 2.0]
    assert read_container("y", range(3)) == [0, 1, 2]
