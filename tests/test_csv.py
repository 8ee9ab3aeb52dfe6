"""A matrix as people keep"""

import io

import numpy as np
import pandas as pd
import pytest

from dlnphase.errors import InputError
from dlnphase.results.matrixfile import MatrixTable, read_matrix_text
from dlnphase.setup.inputs import read_matrix
from dlnphase.setup.labelled import read_labelled

NAN = np.nan
DATA = np.array([[1.5, -2.25, NAN], [0.125, 4.0, 7.5], [9.0, 3.0, -1e-3], [2.0, NAN, 5.0]])
LABELS = tuple("abcd")


def read(tmp_path, text, name="m.csv", **options):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_matrix(path, **options)


def refusal(tmp_path, text, **options):
    with pytest.raises(InputError) as error:
        read(tmp_path, text, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def text_of(write, **options):
    stream = io.StringIO()
    write(stream, **options)
    return stream.getvalue()


@pytest.mark.parametrize("columns", [None, ["x", "y", "z"], [2019, 2020, 2021]])
@pytest.mark.parametrize("index", [None, list("abcd"), [10, 20, 30, 40]])
@pytest.mark.parametrize("named", [None, "id", "film"])
def test_a_data_frame_as_pandas_writes_it(tmp_path, columns, index, named):
    """By default with its index: labels are never numbers of the matrix, whatever they are."""
    frame = pd.DataFrame(DATA, columns=columns, index=index)
    frame.index.name = named
    text = frame.to_csv()
    if named == "film" and index is None:  # a column called film that counts 0, 1, 2 may be either
        assert "--index-column 1 leaves it out" in refusal(tmp_path, text)
        table = read(tmp_path, text, index_column="film")
    elif named == "film" and index == [10, 20, 30, 40]:
        assert "the first column (film) is learned as numbers (10, 20, 30, …)" in read(tmp_path, text).notes[-1]
        table = read(tmp_path, text, index_column="1")
    else:
        table = read(tmp_path, text)
        assert any("first column" in note and "left out" in note for note in table.notes)
    np.testing.assert_array_equal(table.values, DATA)
    assert table.rows == tuple(map(str, frame.index)) and table.columns == tuple(map(str, frame.columns))


def test_a_data_frame_without_its_index(tmp_path):
    frame = pd.DataFrame(DATA)
    assert "names of columns, or numbers? --header leaves it out" in refusal(tmp_path, frame.to_csv(index=False))
    np.testing.assert_array_equal(read(tmp_path, frame.to_csv(index=False), header=True).values, DATA)
    assert read(tmp_path, frame.to_csv(index=False), header=False).values.shape == (5, 3)
    words = refusal(tmp_path, frame.to_csv(header=False))
    assert "the first column counts (0, 1, 2, …): labels of rows, or numbers?" in words
    assert read(tmp_path, frame.to_csv(header=False), index_column="none").values.shape == (4, 4)
    np.testing.assert_array_equal(read(tmp_path, frame.to_csv(header=False), index_column="1").values, DATA)


@pytest.mark.parametrize(
    ("text", "rows", "columns"),
    [
        ('"x","y"\n"a",1,2\n"b",3,4\n', ("a", "b"), ("x", "y")),  # R's write.table: one name less
        ('"","x","y"\n"1",1,2\n"2",3,4\n', ("1", "2"), ("x", "y")),  # R's write.csv
        ("x y\na 1 2\nb 3 4\n", ("a", "b"), ("x", "y")),
        ("a,1,2\nb,3,4\n", ("a", "b"), ()),
        ("user_id,x,y\n1043,1,2\n77,3,4\n", ("1043", "77"), ("x", "y")),
        ("userId\tx\ty\n1043\t1\t2\n77\t3\t4\n", ("1043", "77"), ("x", "y")),
        ("when;x;y\n2020-01-01;1;2\n2020-01-02;3;4\n", ("2020-01-01", "2020-01-02"), ("x", "y")),
        ("#,x,y\n1,1,2\n2,3,4\n", ("1", "2"), ("x", "y")),
        ("id,2019,2020\n1,1,2\n2,3,4\n", ("1", "2"), ("2019", "2020")),
        ("Unnamed: 0,x,y\n0,1,2\n1,3,4\n", ("0", "1"), ("x", "y")),
        ("x,y\n1,2\n3,4\n", (), ("x", "y")),
        ("# x,y\n1,2\n3,4\n", (), ("x", "y")),  # numpy.savetxt(header="x,y")
        ("# x y\n1 2\n3 4\n", (), ("x", "y")),
        ("# made by hand\n# twice\n1 2\n3 4\n", (), ()),
        ('name,"x, or y","z\nz"\na,1,2\nb,3,4\n', ("a", "b"), ("x, or y", "z\nz")),
        ("sep=;\nx;y\n1;2\n3;4\n", (), ("x", "y")),
    ],
)
def test_names_and_labels(tmp_path, text, rows, columns):
    table = read(tmp_path, text)
    np.testing.assert_array_equal(table.values, [[1, 2], [3, 4]])
    assert (table.rows, table.columns) == (rows, columns)
    assert bool(rows) == any("left out" in note for note in table.notes)


@pytest.mark.parametrize("separator", [",", ";", "\t", " "])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_separators_and_encodings(tmp_path, separator, encoding, newline):
    lines = [
        "é x y z",
        *(" ".join([label, *map(repr, map(float, row))]) for label, row in zip(LABELS, DATA, strict=True)),
    ]
    text = newline.join(line.replace(" ", separator) for line in lines)
    table = read(tmp_path, text.encode(encoding))
    np.testing.assert_array_equal(table.values, DATA)
    assert table.rows == LABELS and table.columns == ("x", "y", "z") and table.corner == "é"


def test_decimal_commas(tmp_path):
    frame = pd.DataFrame(DATA, index=list(LABELS), columns=list("xyz"))
    for text in (frame.to_csv(sep=";", decimal=","), frame.to_csv(sep="\t", decimal=","), frame.to_csv(decimal=",")):
        table = read(tmp_path, text)
        np.testing.assert_array_equal(table.values, DATA)
        assert "m.csv: commas are read as decimal points" in table.notes
    words = refusal(tmp_path, "1,5;2\n3.5;4\n")
    assert "line 2: found 3.5 with a decimal point, and 1,5 in line 1 with a decimal comma" in words
    assert "may set off thousands or decimals" in refusal(tmp_path, '"1,250","2,375"\n"3,125","4,000"\n')
    np.testing.assert_array_equal(read(tmp_path, "0,125;2,375\n3;4\n").values, [[0.125, 2.375], [3, 4]])


@pytest.mark.parametrize("gap", ["", "nan", "NaN", "NA", "N/A", "n/a", "#N/A", "<NA>", "NULL", "None", "?", " "])
def test_missing_entries(tmp_path, gap):
    np.testing.assert_array_equal(read(tmp_path, f"x,y\n1,{gap}\n{gap},4\n").values, [[1, NAN], [NAN, 4]])
    np.testing.assert_array_equal(read(tmp_path, f'x,y\n1,"{gap}"\n3,4\n').values, [[1, NAN], [3, 4]])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x,y\n1,2\n\n3\n", "line 4 has 1 cell, expected 2 like the first line"),
        ('x,y\n"1",2\n3,4,5\n', "line 3 has 3 cells, expected 2"),
        ('a,"x\nx"\n1,2\n3,oops\n', "line 4: found 'oops', expected a number or an empty cell"),
        ("1.5,x\n3,4\n", "line 1: found 'x', expected a number"),
        (
            "id,name,x,y\n1,ann,1,2\n2,bob,3,4\n",
            "column 2 (name) holds words such as 'ann', expected numbers; --index-column 1,2 leaves it out",
        ),
        (",x,y\n0.5,1,2\n0.7,3,4\n", "the first column has no name (0.5, 0.7): labels of rows, or numbers?"),
        ("who,7,8,9\nann,1,2,5\nbob,3,4,6\n", "line 1 reads who, 7, 8, …: names of columns, or numbers?"),
        ("1,9.5,3\n2,1.5,4\n3,2.5,9\n", "the first column counts (1, 2, 3)"),
        ("1,2\n3,1.234.5\n", "line 2: found '1.234.5'"),
        (b"x,y\n1,\xe9\n", "byte 6 is not UTF-8"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(tmp_path, text, words):
    assert words in refusal(tmp_path, text)


@pytest.mark.parametrize(
    "names",
    [range(2015, 2024), range(1, 10), range(400, 850, 50), [round(0.1 * k, 1) for k in range(9)]],
    ids=["years", "from 1", "wavelengths", "decimals"],
)
def test_numbers_in_equal_steps_above_others_are_never_learned_in_silence(tmp_path, names):
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(6, 9)), columns=list(names))
    for gaps in (False, True):
        if gaps:
            frame.iloc[2, 3] = np.nan
        frame.to_csv(tmp_path / "m.csv", index=False)
        with pytest.raises(InputError, match="names of columns, or numbers"):
            read_matrix_text(tmp_path / "m.csv", "m.csv")
        assert read_matrix_text(tmp_path / "m.csv", "m.csv", header=True).values.shape == (6, 9)
        assert read_matrix_text(tmp_path / "m.csv", "m.csv", header=False).values.shape == (7, 9)


@pytest.mark.parametrize("index", ["pandas", "id", "none"])
def test_an_index_beside_a_column_of_classes_is_told_and_left_out(tmp_path, index):
    frame = pd.DataFrame({"a": [0.5, 1.5, 2.0, 0.1], "b": [3.0, 1.0, 2.5, 7.5], "kind": ["x", "y", "x", "y"]})
    if index == "id":
        frame.insert(0, "id", [11, 12, 13, 14])
    frame.to_csv(tmp_path / "m.csv", index=index == "pandas")
    data = read_labelled(tmp_path / "m.csv", label_column="kind")
    np.testing.assert_array_equal(data.x, frame[["a", "b"]].to_numpy())
    assert data.y.tolist() == [0, 1, 0, 1] and data.classes == ("x", "y")
    assert any("left out" in note for note in data.notes) == (index != "none")
    if index != "none":
        assert read_labelled(tmp_path / "m.csv", label_column="kind", index_column="none").x.shape == (4, 3)


@pytest.mark.parametrize("text", ["1,2,3\n2,3,4\n3,4,5\n", "0,1,2\n1,2,3\n", "2,9.5\n3,1.5\n4,2.5\n", "1,0\n2,1\n"])
def test_matrices_that_only_look_like_it_are_learned(tmp_path, text):
    expected = np.loadtxt(io.StringIO(text), delimiter=",")
    np.testing.assert_array_equal(read(tmp_path, text).values, expected)


def test_a_first_line_of_words_and_numbers_is_told(tmp_path):
    table = read(tmp_path, "5,oops,3\n4,2,1\n")
    assert table.values.shape == (1, 3) and "the first line (5, oops, 3) names the columns" in table.notes[0]
    assert "line 1: found 'oops'" in refusal(tmp_path, "5,oops,3\n4,2,1\n", header=False)


def test_columns_that_are_asked_for(tmp_path):
    text = "id,name,x,y\n1,ann,1,2\n2,bob,3,4\n"
    for wish in ("id,name", "1,2", "1,name"):
        table = read(tmp_path, text, index_column=wish)
        np.testing.assert_array_equal(table.values, [[1, 2], [3, 4]])
        assert table.rows == ("1", "2") and table.corner == "id" and not table.notes
    assert "index-column: found z, but m.csv has columns 1 to 4 or one of id, name, x, y" in refusal(
        tmp_path, text, index_column="z"
    )
    assert "leaves no column" in refusal(tmp_path, "1,2\n3,4\n", index_column="1,2")
    np.testing.assert_array_equal(read(tmp_path, ",0,1\n5,1,2\n6,3,4\n", index_column="none").values[0], [5, 1, 2])
    np.save(tmp_path / "m.npy", DATA)
    with pytest.raises(InputError, match=r"header: found beside m\.npy, expected only with"):
        read_matrix(tmp_path / "m.npy", header=True)


@pytest.mark.parametrize("rows", [(), LABELS, ("0", "1", "2", "3")])
@pytest.mark.parametrize("columns", [(), ("x, y", 'say "z"', "é")])
def test_what_is_written_is_read_again(tmp_path, rows, columns):
    table = MatrixTable(DATA, rows, columns, "who" if rows == LABELS and columns else "")
    options = {"index_column": "1"} if rows and rows != LABELS and not columns else {}
    again = read(tmp_path, table.csv(), **options)
    np.testing.assert_array_equal(again.values, DATA)
    assert (again.rows, again.columns, again.corner) == (table.rows, table.columns, table.corner)
