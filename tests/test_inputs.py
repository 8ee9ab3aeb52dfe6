"""The user's files: what is read, and the one line for what cannot be."""

import numpy as np
import pytest
import torch

from dlnphase.errors import InputError
from dlnphase.setup.inputs import read_matrix, read_regression, read_weights

NAN = np.nan


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,2\n3,4\n", [[1, 2], [3, 4]]),
        ("a,b\n1,\n,4\n", [[1, NAN], [NAN, 4]]),
        ("1;2;3\n4;NA;6", [[1, 2, 3], [4, NAN, 6]]),
        ("1\t2\n?\t-4e-1\n", [[1, 2], [NAN, -0.4]]),
        ("1 2 3\n4 5 6", [[1, 2, 3], [4, 5, 6]]),
        ('"1","2"\n\n3,nan\n', [[1, 2], [3, NAN]]),
        ("\ufeff1,2\r\n3,4\r\n", [[1, 2], [3, 4]]),
    ],
)
def test_csv(tmp_path, text, expected):
    path = tmp_path / "m.csv"
    path.write_bytes(text.encode())
    np.testing.assert_array_equal(read_matrix(path).values, expected)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,2\n3\n", "line 2 has 1 cell, expected 2 like the first line"),
        ("1,2\n3,x\n", "line 2: found 'x', expected a number or an empty cell"),
        ("a,b\nc,d\n", "line 2: found 'd'"),
        ("", "no line of numbers"),
        ("a,b\n", "no line of numbers"),
        (",\n,\n", "every entry is NaN or empty"),
        ("1,inf\n", "1 entry not finite"),
        ("1,1_0\n", "found '1_0'"),
        ("1,2\0\n", "binary data"),
    ],
)
def test_csv_that_cannot_be_used(tmp_path, text, words):
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_matrix(path)
    assert words in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


def test_arrays(tmp_path):
    a = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "a.npy", a.astype(np.float32))
    np.savez(tmp_path / "one.npz", whatever=a)
    np.savez(tmp_path / "named.npz", A=a, other=np.zeros(3))
    for name in ("a.npy", "one.npz", "named.npz"):
        np.testing.assert_array_equal(read_matrix(tmp_path / name).values, a)
    np.savez(tmp_path / "two.npz", x=a, y=a)
    np.save(tmp_path / "flat.npy", a.ravel())
    np.save(tmp_path / "complex.npy", a * 1j)
    np.save(tmp_path / "objects.npy", np.array([[None]], dtype=object), allow_pickle=True)
    (tmp_path / "x.npy").write_bytes(b"no")
    (tmp_path / "m.xlsx").write_text("1")
    for name in ("two.npz", "flat.npy", "complex.npy", "objects.npy", "x.npy", "m.xlsx", "none.csv"):
        with pytest.raises(InputError, match=name):
            read_matrix(tmp_path / name)


def test_regression_data(tmp_path):
    x, y = np.ones((5, 3)), np.ones((5, 2))
    np.savez(tmp_path / "ok.npz", X=x, Y=y[:, 0], X_test=x, Y_test=y[:, 0])
    out = read_regression(tmp_path / "ok.npz")
    assert out["Y"].shape == (5, 1) and out["X_test"].shape == (5, 3)
    bad = {
        "Y_missing": ({"X": x}, "expected arrays X"),
        "length": ({"X": x, "Y": y[:4]}, "X has 5 rows and Y has 4"),
        "nan": ({"X": x * NAN, "Y": y}, "X: 15 entries not finite"),
        "half": ({"X": x, "Y": y, "X_test": x}, "only one of X_test and Y_test"),
        "columns": ({"X": x, "Y": y, "X_test": x[:, :2], "Y_test": y}, "other columns"),
        "empty": ({"X": x[:0], "Y": y[:0]}, "none of them empty"),
    }
    for name, (arrays, words) in bad.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
        with pytest.raises(InputError, match=words):
            read_regression(tmp_path / f"{name}.npz")


def test_weights(tmp_path):
    layers = [np.ones((4, 3)), np.ones((5, 4)), np.ones((2, 5))]
    np.savez(tmp_path / "w.npz", **{f"W{k}": w for k, w in enumerate(layers, 1)})
    assert [w.shape for w in read_weights(tmp_path / "w.npz")] == [(1, 4, 3), (1, 5, 4), (1, 2, 5)]
    np.savez(tmp_path / "batch.npz", W1=np.ones((7, 4, 3)), W2=np.ones((7, 2, 4)))
    assert read_weights(tmp_path / "batch.npz")[0].shape == (7, 4, 3)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4, bias=False), torch.nn.Linear(4, 2, bias=False))
    torch.save(model.state_dict(), tmp_path / "m.pt")
    read = read_weights(tmp_path / "m.pt")
    np.testing.assert_array_equal(read[1][0], model[1].weight.detach().double().numpy())


def test_weights_that_cannot_be_used(tmp_path):
    np.savez(tmp_path / "gap.npz", W1=np.ones((4, 3)), W3=np.ones((2, 4)))
    np.savez(tmp_path / "chain.npz", W1=np.ones((4, 3)), W2=np.ones((2, 5)))
    np.savez(tmp_path / "one.npz", W1=np.ones((4, 3)))
    np.savez(tmp_path / "nan.npz", W1=np.ones((4, 3)) * NAN, W2=np.ones((2, 4)))
    torch.save(torch.nn.Linear(3, 4).state_dict(), tmp_path / "bias.pt")
    torch.save(torch.nn.Linear(3, 4), tmp_path / "pickled.pt")
    (tmp_path / "text.pt").write_text("hello")
    words = {
        "gap.npz": "without a gap",
        "chain.npz": "takes 5 inputs, the layer below gives 4",
        "one.npz": "expected at least 2",
        "nan.npz": "not finite",
        "bias.pt": "is a bias",
        "pickled.pt": "holds more than tensors.*torch.save",
        "text.pt": "expected a torch state dict",
        "none.npz": "no such file",
    }
    for name, match in words.items():
        with pytest.raises(InputError, match=match):
            read_weights(tmp_path / name)


def test_text_for_a_regression_is_refused_with_what_reads_text(tmp_path):
    (tmp_path / "reg.csv").write_text("1,2,3\n4,5,6\n")
    with pytest.raises(InputError, match=r"reg\.csv: found text.*--label-column.*expected an \.npz with X .* and Y "):
        read_regression(tmp_path / "reg.csv")
