"""Results on disk: exact, atomic, one process per directory, nothing executed."""

import math
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dlnphase.errors import InputError, RunError
from dlnphase.results import (
    OutputDirectory,
    commit,
    decode,
    dump_yaml,
    encode,
    json_ready,
    load_document,
    mode_of,
    npz_bytes,
    parse_yaml,
    read_npz,
    refuse_different,
    write_atomic,
)
from dlnphase.results.detect import load_detect
from dlnphase.results.schema import load_unchanged
from dlnphase.results.train import load_train

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(PLAIN)
def test_yaml_gives_back_exactly_what_was_written(value):
    text = dump_yaml(value)
    back = parse_yaml(text, "f")
    assert back == value
    assert repr(back) == repr(value)  # -0.0 is not 0.0, 1.0 is not 1
    assert "\n&" not in text and "!!" not in text
    assert yaml.safe_load(text) == value  # and so does any other reader


@pytest.mark.parametrize(
    ("text", "value"), [("1e-8", 1e-8), ("1E5", 1e5), ("no", "no"), ("010", 10), ("1:30", "1:30"), (".inf", math.inf)]
)
def test_scalars_are_read_by_the_rules_of_yaml_1_2(text, value):
    assert parse_yaml(f"a: {text}", "f") == {"a": value}


def test_what_is_no_number_is_read_as_such():
    assert math.isnan(parse_yaml("a: .nan", "f")["a"]) and math.isnan(parse_yaml(dump_yaml([math.nan]), "f")[0])
    assert parse_yaml("[-.inf, +.Inf, .INF]", "f") == [-math.inf, math.inf, math.inf]


@pytest.mark.parametrize(
    "text",
    [
        "a: &x 1\nb: *x",
        "a: !!python/object/apply:os.system ['true']",
        "a: !!binary aGk=",
        "a: 1\na: 2",
        "[" * 60 + "]" * 60,
        "a: [",
        "1: 2",
        "? [a]\n: 1",
        "a: " + "9" * 5000,
        "a: \x00",
        "<<: {a: 1}\n" + "- b",
    ],
)
def test_anything_but_plain_yaml_is_refused_in_one_line(text):
    with pytest.raises(InputError, match=r"^f:") as error:
        parse_yaml(text, "f")
    assert "\n" not in str(error.value)


@dataclass(frozen=True)
class Inner:
    name: str
    size: float | None = None


@dataclass(frozen=True)
class Outer:
    kind: Literal["a", "b"]
    count: int
    values: tuple[float, ...]
    pair: tuple[int, str]
    rows: list[Inner]
    table: dict[str, float]
    on: bool = False


@given(
    st.builds(
        Outer,
        st.sampled_from(["a", "b"]),
        st.integers(),
        st.lists(st.floats(allow_nan=False)).map(tuple),
        st.tuples(st.integers(), st.text()),
        st.lists(st.builds(Inner, st.text(), st.none() | st.floats(allow_nan=False)), max_size=3),
        st.dictionaries(st.text(), st.floats(allow_nan=False), max_size=3),
        st.booleans(),
    )
)
def test_dataclasses_survive_save_and_load(value):
    assert decode(Outer, parse_yaml(dump_yaml(encode(value)), "f"), "f") == value


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"count": 1.5}, r"f\.count: found 1\.5, expected an integer"),
        ({"count": True}, r"f\.count: found True"),
        ({"kind": "c"}, r"f\.kind: found 'c', expected 'a' or 'b'"),
        ({"values": [1, "x"]}, r"f\.values\[1\]: found 'x', expected a number"),
        ({"pair": [1]}, r"f\.pair: found \[1\], expected a list of 2"),
        ({"rows": [{"size": 1}]}, r"f\.rows\[0\]\.name: missing"),
        ({"rows": [{"name": "n", "sise": 1}]}, r"f\.rows\[0\]\.sise: unknown key"),
        ({"table": {"k": None}}, r"f\.table\.k: found None"),
    ],
)
def test_a_wrong_key_is_named(change, words):
    good = {"kind": "a", "count": 1, "values": [], "pair": [1, "x"], "rows": [], "table": {}}
    decode(Outer, good, "f")
    with pytest.raises(InputError, match=words):
        decode(Outer, good | change, "f")


def test_json_has_no_nan():
    assert json_ready({"a": [math.nan, 1.0], "b": math.inf}) == {"a": [None, 1.0], "b": None}


@pytest.mark.parametrize(
    "text", ["a: 1", "schema: dlnphase/train", "schema: other/train@1", "schema: dlnphase/plot@1", "[]", "schema: 3"]
)
def test_a_foreign_file_is_no_result(tmp_path, text):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(InputError, match=r"run\.yaml"):
        load_document(tmp_path / "run.yaml", "dlnphase/train@1")


def test_a_newer_schema_is_told(tmp_path):
    (tmp_path / "run.yaml").write_text("schema: dlnphase/train@7")
    with pytest.raises(InputError, match="newer dlnphase"):
        load_document(tmp_path / "run.yaml", "dlnphase/train@1")


# ---- files -------------------------------------------------------------------------------------------


def test_arrays_come_back_bit_for_bit(tmp_path):
    arrays = {"a": np.array([[1.0, -0.0, np.nan]]), "b": np.arange(3)}
    (tmp_path / "x.npz").write_bytes(npz_bytes(arrays))
    back = read_npz(tmp_path / "x.npz")
    assert {k: v.tobytes() for k, v in back.items()} == {k: v.tobytes() for k, v in arrays.items()}
    assert npz_bytes(arrays) == npz_bytes(arrays)


def test_pickles_and_damaged_archives_are_refused(tmp_path):
    np.savez(tmp_path / "p.npz", a=np.array([{"x": 1}], dtype=object))
    (tmp_path / "g.npz").write_bytes(b"PK\x03\x04 not really")
    np.savez(tmp_path / "s.npz", a=np.array(["word"]))
    (tmp_path / "half.npz").write_bytes(npz_bytes({"a": np.zeros(1000)})[:-100])
    for name in ("p.npz", "g.npz", "s.npz", "half.npz", "missing.npz"):
        with pytest.raises(InputError, match=name):
            read_npz(tmp_path / name)


def test_arrays_too_large_together_are_refused(tmp_path, monkeypatch):
    (tmp_path / "x.npz").write_bytes(npz_bytes({name: np.zeros(60) for name in "abc"}))
    assert len(read_npz(tmp_path / "x.npz")) == 3
    monkeypatch.setattr("dlnphase.results.files.MAX_ARRAY_BYTES", 1500)
    with pytest.raises(InputError, match="its arrays claim"):
        read_npz(tmp_path / "x.npz")


def test_a_header_that_promises_too_much_is_refused_before_it_is_allocated(tmp_path):
    header = b"\x93NUMPY\x01\x00"
    text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117) + b"\n"
    import zipfile

    with zipfile.ZipFile(tmp_path / "big.npz", "w") as archive:
        archive.writestr("a.npy", header + len(text).to_bytes(2, "little") + text + b"\0" * 16)
    with pytest.raises(InputError, match="promises shape"):
        read_npz(tmp_path / "big.npz")


def test_a_write_that_fails_keeps_what_was_there(tmp_path, monkeypatch):
    commit(tmp_path, {"a.npz": b"old", "run.yaml": "old"}, main="run.yaml")
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left"):
        commit(tmp_path, {"a.npz": b"new", "run.yaml": "new"}, main="run.yaml")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a.npz": "old", "run.yaml": "old"}


def test_no_moment_shows_a_main_file_beside_parts_of_another_result(tmp_path, monkeypatch):
    commit(tmp_path, {"a.npz": b"1", "run.yaml": "1"}, main="run.yaml")
    seen = []

    def watch(real):
        def call(*args, **kwargs):
            out = real(*args, **kwargs)
            main, part = tmp_path / "run.yaml", tmp_path / "a.npz"
            seen.append((main.read_text() if main.exists() else None, part.read_text()))
            return out

        return call

    monkeypatch.setattr(os, "replace", watch(os.replace))
    monkeypatch.setattr(os, "unlink", watch(os.unlink))
    commit(tmp_path, {"a.npz": b"2", "run.yaml": "2"}, main="run.yaml")
    assert seen and all(main is None or main == part for main, part in seen)
    assert seen[-1] == ("2", "2")


def test_files_have_the_permissions_of_ordinary_files(tmp_path):
    write_atomic(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


# ---- directories -------------------------------------------------------------------------------------


def test_a_result_is_not_overwritten_unasked(tmp_path):
    (tmp_path / "run.yaml").write_text("x")
    with pytest.raises(InputError, match="already holds a result"), OutputDirectory(tmp_path, main="run.yaml"):
        pass
    for mode in ("overwrite", "resume"):
        with OutputDirectory(tmp_path, main="run.yaml", mode=mode) as out:
            assert out.main.exists()
    with pytest.raises(InputError, match="expected one"):
        mode_of(True, True)


def test_a_directory_made_for_nothing_goes_again(tmp_path):
    with pytest.raises(ZeroDivisionError), OutputDirectory(tmp_path / "a" / "b", main="run.yaml"):
        raise ZeroDivisionError
    assert not (tmp_path / "a").exists()
    with OutputDirectory(tmp_path / "a" / "b", main="run.yaml") as out:
        write_atomic(out.main, "x")
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["run.yaml"]


def test_a_file_in_the_way_is_told(tmp_path):
    (tmp_path / "f").write_text("x")
    for path in (tmp_path / "f", tmp_path / "f" / "below"):
        with pytest.raises(InputError, match="--out"), OutputDirectory(path, main="run.yaml"):
            pass


def test_the_second_process_is_told(tmp_path):
    code = (
        "import sys; from dlnphase.results import OutputDirectory\n"
        f"with OutputDirectory({str(tmp_path)!r}, main='run.yaml'):\n"
        "    print('in', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "in\n"
        with pytest.raises(InputError, match=f"process {other.pid}"), OutputDirectory(tmp_path, main="run.yaml"):
            pass
        other.kill()  # a lock dies with its process
        other.wait()
        with OutputDirectory(tmp_path, main="run.yaml"):
            pass
    finally:
        other.kill()
        other.communicate()


def test_other_settings_are_refused_key_by_key():
    refuse_different({"a": 1, "b": 2}, {"a": 1, "b": 2}, "runs/x")
    with pytest.raises(InputError) as error:
        refuse_different({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}, "runs/x")
    assert str(error.value).splitlines()[1:] == ["  b: 2 there, 3 asked for", "  c: (absent) there, 4 asked for"]


def test_a_result_that_is_replaced_while_it_is_read_is_read_again(tmp_path):
    path = tmp_path / "run.yaml"
    write_atomic(path, "1")
    reads = []

    def read():
        first = path.read_text()
        if len(reads) < 2:
            reads.append(first)
            write_atomic(path, str(len(reads) + 1))  # another process saves in the middle
            if len(reads) == 1:
                raise InputError("parts of two results do not fit")
        return first, path.read_text()

    assert load_unchanged(path, read) == ("3", "3") and reads == ["1", "2"]
    with pytest.raises(InputError, match="really"):
        load_unchanged(path, lambda: (_ for _ in ()).throw(InputError("really")))


def test_where_the_system_has_no_posix_locks_another_lock_stands_in(tmp_path, monkeypatch):
    monkeypatch.setattr("dlnphase.results.locks.fcntl", None)
    with OutputDirectory(tmp_path / "out", main="run.yaml") as out:
        with pytest.raises(InputError, match="in use by another"), OutputDirectory(tmp_path / "out", main="run.yaml"):
            pass
        commit(out.path, {"run.yaml": "a: 1\n", "part.txt": "b"}, main="run.yaml")
    with OutputDirectory(tmp_path / "out", main="run.yaml", mode="overwrite") as out:
        assert (out.path / "part.txt").read_text() == "b"


def test_a_part_that_is_not_there_is_told_by_its_file():
    folder = Path(__file__).parent / "data" / "schemas"
    run, found = load_train(folder / "train@1"), load_detect(folder / "detect-saddles@1")
    assert run.path is run.trajectory and found.arrays is found.matrices
    with pytest.raises(InputError, match=r"trajectory\.npz is not there, expected it beside run\.yaml"):
        replace(run, trajectory=None).path  # noqa: B018
    with pytest.raises(InputError, match=r"saddles\.npz is not there, expected it beside saddles\.yaml"):
        replace(found, matrices=None).arrays  # noqa: B018
