"""Damage, drawn by a seeded generator: to bytes, to YAML text, to the documents in it, to arrays and their archives."""

import copy
import io
import zipfile

import numpy as np
import yaml

SCALARS = [
    *("", "~", "null", "true", "yes"),
    *("-1", "0", "1", "2", "1.5", "1e3", "-1e-300", "1e400", "1e18", "9" * 400, "0x10"),
    *(".nan", ".inf", "-.inf", "nan", "1_000"),
    *("[]", "{}", "[[[]]]", "[1, 2, 3]", "{a: 1}", "'word'", '"\\u202egnp.exe"'),
    *("!!python/object/apply:os.system ['touch hacked']", "!!binary aGk=", "!foo bar", "&a [1]", "*a", "<<"),
    *("@", "`", "%", "'", '"', "|", ">", "- -", "?", ": :", "\t", "é", "\u202e", "\x00", "\ud800"),
    *("[" * 300, "{a: " * 300, "x" * 9000, "2020-01-01", "1:30:00"),
    *("auto", "flow", "gd", "greedy", "completion", "0.7:2.0:1e-9", "1:2:0", "nan,nan", "10x10"),
    *("../../x", "/dev/zero", "~nobody/x", "completion factorization", "dlnphase/train@1", "dlnphase/plot@999999"),
]
VALUES = [
    *(None, True, False, 0, 1, -1, 2, 3, 10**18, -(10**18), 10**400),
    *(0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), float("-inf")),
    *("", "x", "\u202e\u0000", "nan"),
    *([], {}, [[]], [1, "a", None], {"a": {"b": []}}, "auto", [0] * 50, "1e400", [float("nan")], {"": ""}),
    *("full", "krylov", "float32", "sensing", "regression"),
]


def damaged_bytes(data, rng):
    """Flipped, cut, repeated, emptied."""
    data = bytearray(data)
    kind = rng.integers(6)
    where = int(rng.integers(max(len(data), 1)))
    if kind == 0:
        return bytes(data[:where])
    if kind == 1:
        return bytes(data[where:])
    if kind == 2:
        return bytes(data[:where] + data[where // 2 :])
    if kind == 3:
        return bytes(data[:where] + rng.bytes(int(rng.integers(1, 9))) + data[where:])
    for _ in range(int(rng.integers(1, 9)) if data else 0):
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return bytes(data)


def damaged_text(text, rng):
    """A line deleted, repeated, given another value, or moved in depth."""
    lines = text.split("\n")
    k = int(rng.integers(len(lines)))
    kind = rng.integers(5)
    if kind == 0:
        del lines[k]
    elif kind == 1:
        lines.insert(k, lines[int(rng.integers(len(lines)))])
    elif kind == 2:
        lines[k] = " " * int(rng.integers(5)) + lines[k]
    else:
        lines[k] = lines[k].partition(":")[0] + ": " + SCALARS[int(rng.integers(len(SCALARS)))]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def damaged_document(document, rng):
    """The document as YAML, with one value or key changed, deleted or added somewhere."""
    document = copy.deepcopy(document)
    places = list(_places(document))
    holder, key = places[int(rng.integers(len(places)))]
    kind = rng.integers(8)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[f"{key}_"] = holder.pop(key)
    elif kind == 2 and isinstance(holder, list):
        holder.append(holder[key])
    else:
        holder[key] = VALUES[int(rng.integers(len(VALUES)))]
    return yaml.dump(document, allow_unicode=True, Dumper=Plain).encode("utf-8", "surrogatepass")


class Plain(yaml.SafeDumper):
    """Without anchors, which our reader refuses."""

    def ignore_aliases(self, data):
        return True


def _places(value):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


def damaged_arrays(arrays, rng):
    """An .npz with one array of another shape, type, name or content; or its bytes damaged."""
    arrays = dict(arrays)
    name = list(arrays)[int(rng.integers(len(arrays)))]
    array = arrays[name]
    kind = int(rng.integers(12))
    if kind == 0:
        del arrays[name]
    elif kind == 1:
        arrays[name + "x"] = arrays.pop(name)
    elif kind == 2:
        arrays[name] = array[..., None]
    elif kind == 3:
        arrays[name] = array.ravel()[: int(rng.integers(array.size + 1))]
    elif kind == 4:
        arrays[name] = array.astype(["i1", "f2", "c16", "U8", "?", ">f8"][int(rng.integers(6))])
    elif kind == 5:
        arrays[name] = np.array(array.tolist(), dtype=object)
    elif kind in (6, 7):
        arrays[name] = filled = array.astype(float)
        filled.flat[rng.integers(max(filled.size, 1), size=min(filled.size, 3))] = rng.choice(
            [np.nan, np.inf, -np.inf, 1e308, -1e308, 1e200, 1e-320, -1.0]
        )
    elif kind == 8:
        arrays[name] = array[::-1]
    elif kind == 9:
        arrays[name] = np.zeros((0, *array.shape[1:]))
    else:
        return damaged_bytes(packed(arrays), rng)
    return packed(arrays)


def packed(arrays):
    """The bytes of an .npz, object arrays and all."""
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def npy_claiming(shape, descr="<f8", body=b"\0" * 64):
    """An .npy whose header promises what its body does not hold."""
    head = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + body


def zip_bomb(name, size):
    """An archive of a few kilobytes whose one array unpacks to ``size`` zeros."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, npy_claiming((size // 8,), body=b"") + b"\0" * size)
    return out.getvalue()


# ---- commands on damaged files, in a process of bounded memory -------------------------------------------

TASK = ["--task", "factorization", "--shape", "3x2", "--singular-values", "3,1"]
TINY = ["-L", "2", "-w", "8", "-g", "3"]
SWEEP = ["--gammas", "0.7,1.5", "--widths", "40,60", "--dim", "2", "-L", "2", "--seeds", "2", "--jobs", "1"]
BRIEF = ["-q", "--overwrite", "--out", "out"]
MEMORY = 2 * 2**30  # what a case may take besides the libraries
SECONDS = 60  # after which a case hangs; they take a tenth of a second


class Bench:
    """Good files of every kind in the present directory, and commands that read damaged copies of them."""

    def __init__(self):
        from pathlib import Path

        rng = np.random.default_rng(0)
        assert run("train", *TASK, *TINY, "--out", "run", "-q")[0] == 0
        assert run("train", "--dim", "3", "--rank", "1", *TINY, "--seeds", "2", "--out", "batch", "-q")[0] == 0
        assert run("sweep-gamma", *SWEEP, "--out", "sweep", "-q")[0] == 0
        assert run("detect-saddles", "run", "--greedy", "--out", "saddles", "-q")[0] == 0
        self.mains = {"run": "run.yaml", "batch": "run.yaml", "sweep": "sweep.yaml", "saddles": "saddles.yaml"}
        self.texts = {name: Path(name, main).read_text() for name, main in self.mains.items()}
        self.documents = {name: yaml.safe_load(text) for name, text in self.texts.items()}
        self.arrays = {
            name: dict(np.load(f"{name}/{f}")) for name, f in (("run", "trajectory.npz"), ("saddles", "saddles.npz"))
        }
        x = rng.standard_normal((12, 3))
        steps = {"t": np.linspace(0, 1, 6)}
        self.inputs = {
            "data": {"X": x, "Y": x @ rng.standard_normal((3, 2)), "X_test": x, "Y_test": x[:, :2]},
            "weights": {"W1": 0.1 * rng.standard_normal((4, 2)), "W2": 0.1 * rng.standard_normal((3, 4))},
            "target": {"A": rng.standard_normal((3, 2))},
            "path": steps | {"W1": rng.standard_normal((6, 4, 2)), "W2": rng.standard_normal((6, 3, 4))},
            "matrices": steps | {"A": rng.standard_normal((6, 3, 2))},
        }

    def yaml(self, name, rng):
        """A damaged main file."""
        kind = rng.integers(3)
        if kind == 0:
            return damaged_bytes(self.texts[name].encode(), rng)
        return damaged_text(self.texts[name], rng) if kind == 1 else damaged_document(self.documents[name], rng)

    def csv(self, rng):
        """A damaged matrix as text."""
        good = "1,2\n3,\n5,6\n"
        if rng.integers(2):
            return damaged_bytes(good.encode(), rng)
        words = [
            "nan",
            "inf",
            "1e400",
            "x",
            "",
            "1e200",
            "-1e308",
            "1e-320",
            "0x1",
            "1_0",
            "\u202e",
            "٣",
            "½",
            '"',
            "1,",
        ]
        return good.replace(str(rng.integers(1, 7)), words[int(rng.integers(len(words)))]).encode()

    def case(self, rng):
        """A command line, after the files it reads have been written."""
        import shutil
        from pathlib import Path

        def place(name, file, data):
            shutil.rmtree("copy", ignore_errors=True)
            shutil.copytree(name, "copy")
            Path("copy", file).write_bytes(data)

        def one_of(*commands):
            return commands[int(rng.integers(len(commands)))]

        kind = int(rng.integers(11))
        if kind == 0:
            Path("c.yaml").write_bytes(self.yaml(one_of("run", "batch"), rng))
            return ["train", "--config", "c.yaml", "--max-steps", "3", *BRIEF]
        if kind == 1:
            Path("c.yaml").write_bytes(self.yaml("sweep", rng))
            narrow = "--gammas 1.5 --widths 40 --seeds 1 --jobs 1"
            return ["sweep-gamma", "--config", "c.yaml", *narrow.split(), *BRIEF]
        if kind == 2:
            Path("c.yaml").write_bytes(self.yaml("saddles", rng))
            return ["detect-saddles", "--config", "c.yaml", *BRIEF]
        if kind == 3:
            name = one_of("run", "batch")
            place(name, "run.yaml", self.yaml(name, rng))
            go_on = ["train", *TASK, *TINY, "--out", "copy", "--resume", "-q"]
            return one_of(["plot", "copy", "--terminal"], ["detect-saddles", "copy", *BRIEF], go_on)
        if kind == 4:
            place("sweep", "sweep.yaml", self.yaml("sweep", rng))
            go_on = ["sweep-gamma", *SWEEP, "--out", "copy", "--resume", "-q"]
            return one_of(["plot", "copy", "--terminal"], go_on)
        if kind == 5:
            place("saddles", "saddles.yaml", self.yaml("saddles", rng))
            go_on = ["detect-saddles", "run", "--greedy", "--out", "copy", "--resume", "-q"]
            return one_of(["plot", "copy", "--terminal"], go_on)
        if kind == 6:
            place("run", "trajectory.npz", damaged_arrays(self.arrays["run"], rng))
            return one_of(["plot", "copy", "--terminal"], ["detect-saddles", "copy", *BRIEF])
        if kind == 7:
            place("saddles", "saddles.npz", damaged_arrays(self.arrays["saddles"], rng))
            return ["plot", "copy", "--terminal"]
        if kind == 8:
            Path("i.csv").write_bytes(self.csv(rng))
            return ["train", "--target", "i.csv", *TINY, "--max-steps", "3", *BRIEF]
        name = one_of(*self.inputs)
        Path("i.npz").write_bytes(damaged_arrays(self.inputs[name], rng))
        if name in ("path", "matrices"):
            return ["detect-saddles", "i.npz", *TASK, *BRIEF, *one_of([], ["-L", "2"])]
        options = {"weights": ["--init-weights", "i.npz", *TASK]}.get(name, [f"--{name}", "i.npz", *TINY])
        return ["train", *options, "--max-steps", "3", *BRIEF]


def run(*args):
    """A command in this process: exit code, stdout, stderr."""
    import contextlib

    from dlnphase.cli import app

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = app.run([str(a) for a in args])
    return code, out.getvalue(), err.getvalue()


def bound_memory():
    """From now on an allocation beyond MEMORY fails."""
    import resource

    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def broken_promise(args):
    """What is wrong about how a command met a damaged file, or None; and its exit code."""
    import signal
    import traceback

    def hangs(*_):
        raise TimeoutError("it hangs")

    signal.signal(signal.SIGALRM, hangs)
    signal.alarm(SECONDS)
    try:
        code, _, err = run(*args)
    except BaseException:
        return traceback.format_exc(), None
    finally:
        signal.alarm(0)
    lines = err.rstrip("\n").split("\n")
    one_line = lines[0].startswith("dlnphase: ") and all(line.startswith("  ") for line in lines[1:])
    if code not in (0, 1, 2) or (code and not one_line):
        return f"exit code {code}: {err}", code
    return None, code


def main(seeds, count):
    """Run ``count`` cases of each seed in an empty directory; prints what went wrong and how often each code came."""
    import json
    import os
    import tempfile
    from collections import Counter

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        bench = Bench()
        bound_memory()
        codes, wrong = Counter(), []
        for seed, k in ((seed, k) for seed in seeds for k in range(count)):
            args = bench.case(np.random.default_rng([seed, k]))
            words, code = broken_promise(args)
            codes[f"{args[0]} {code}"] += 1
            if words is not None:
                wrong.append(f"case {seed} {k}: {' '.join(args)}\n{words}")
        print(json.dumps({"wrong": wrong, "codes": codes, "executed": os.path.exists("hacked")}))
        os.chdir("/")


if __name__ == "__main__":
    import sys

    main([int(seed) for seed in sys.argv[1].split(",")], int(sys.argv[2]))
