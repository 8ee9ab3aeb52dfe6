"""The house rules that a machine can check: rooms and their order, printing, files, names of machines."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from dlnphase.training.reasons import REASONS

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "dlnphase"
FILES = sorted(PACKAGE.rglob("*.py"))
EXAMPLE = ROOT / "tests" / "data" / "schemas" / "train@1"
ROOMS = {"typer": "cli", "rich": "cli", "click": "cli", "matplotlib": "plotting"}

# The rooms from the ground up (docs/architecture.md tells the same); each imports from itself and from those before it.
ORDER = (
    *("__init__", "errors", "findings", "observables", "backend", "costs", "networks", "dynamics", "critical"),
    *("distances", "proofs", "settings", "results", "setup", "training", "detect", "sweep", "plotting", "cli"),
    *("__main__",),
)
FLOORS = {name: level for level, name in enumerate(ORDER)}
SURE = tuple(name for name in ORDER if not name.startswith("__"))  # assert nothing


def imports(path):
    """(module, line, at module level) of every import in a file."""
    tree = ast.parse(path.read_text())
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            whole = node.module == "dlnphase"
            names = [f"{node.module}.{alias.name}" for alias in node.names] if whole else [node.module]
            yield from ((name, node.lineno, id(node) in top) for name in names)


def unit(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_module_has_a_room():
    assert {unit(path) for path in FILES} <= set(FLOORS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_imports_only_from_its_room_or_below(path):
    name, here = path.relative_to(PACKAGE).as_posix(), unit(path)
    if name == "__init__.py":
        return  # the public namespace: everything, when it is asked for
    for module, line, _ in imports(path):
        first, _, rest = module.partition(".")
        room = ROOMS.get(first)
        assert room is None or here == room, f"{name}:{line} imports {first}, which belongs in {room}/"
        if first == "dlnphase" and rest:
            other = rest.split(".")[0]
            if other.startswith("__"):
                continue
            assert FLOORS[other] <= FLOORS[here], f"{name}:{line} imports {module}, which stands above it"


def test_no_two_classes_have_one_name():
    """One word for one thing; private ones are known in their file alone."""
    names = [
        node.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice


def test_no_two_files_import_each_other():
    """Inside a room, too, arrows run one way: the imports at module level have an order."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
    known = set(names) - {"dlnphase"}  # the public namespace loads nothing by itself
    needs = {name: {m for m, _, top in imports(path) if top and m in known} for name, path in names.items()}
    TopologicalSorter(needs).prepare()  # raises CycleError with the circle


def test_the_sections_that_are_cited_exist():
    there = set(re.findall(r"^## (\d+)\. ", (ROOT / "docs" / "theory.md").read_text(), re.MULTILINE))
    for path in [*FILES, *sorted((ROOT / "tests").glob("*.py"))]:
        for found in re.findall(r"docs/theory\.md, sections? ([0-9, and]+)", path.read_text()):
            cited = set(re.findall(r"\d+", found))
            assert cited and cited <= there, f"{path} cites section {found} of docs/theory.md"


def test_only_the_top_floor_prints():
    for path in FILES:
        if unit(path) == "cli":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", f"{path}:{node.lineno} prints"


def test_matplotlib_is_imported_when_something_is_drawn_and_not_before():
    for path in PACKAGE.joinpath("plotting").rglob("*.py"):
        for module, line, top in imports(path):
            assert not (top and module.startswith("matplotlib")), f"{path}:{line}"


def test_nothing_is_unpickled():
    for path in FILES:
        text = path.read_text()
        assert not re.search(r"^\s*(import|from) (pickle|cPickle|dill|cloudpickle|joblib)\b", text, re.M), path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                target = ast.unparse(node.func)
                keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
                if target == "torch.load":
                    assert keywords.get("weights_only") == "True", path
                if target in ("np.load", "numpy.load"):
                    assert keywords.get("allow_pickle", "False") == "False", path
                assert target != "yaml.load" or keywords.get("Loader") == "_Loader", path


@pytest.mark.parametrize("room", SURE)
def test_what_must_be_there_is_so_by_its_type(room):
    """Nothing calms the type checker: a value that may be missing has a type that says so, and is told in words."""
    for path in (path for path in FILES if unit(path) == room):
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, ast.Assert), f"{path}:{node.lineno} asserts"


def test_no_line_asks_the_formatter_to_stay_away():
    off = re.compile("# fmt" + ":")
    for path in (
        p for folder in ("dlnphase", "tests", "gauntlet", "tools", "bench") for p in (ROOT / folder).rglob("*.py")
    ):
        assert not off.search(path.read_text()), path


@pytest.mark.parametrize("room", sorted({unit(path) for path in FILES}))
def test_a_number_with_a_name_says_what_it_is(room):
    """What it trades, or where it comes from, in a comment beside it or right above."""
    for path in (path for path in FILES if unit(path) == room):
        lines = path.read_text().splitlines()
        for node in ast.parse(path.read_text()).body:
            value = getattr(node, "value", None) if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
            parts = value.elts if isinstance(value, ast.Tuple) else [value]
            if value is None or not parts or not all(_is_number(part) for part in parts):
                continue
            said = [
                *lines[node.lineno - 1 : node.end_lineno],
                *(x for x in lines[node.lineno - 2 :][:1] if x[:1] == "#"),
            ]
            assert any("#" in line for line in said), f"{path}:{node.lineno} {lines[node.lineno - 1]}"


def _is_number(node):
    """Whether an expression is made of numbers alone."""
    leaves = [n for n in ast.walk(node) if not isinstance(n, (ast.operator, ast.unaryop, ast.BinOp, ast.UnaryOp))]
    return all(isinstance(n, ast.Constant) and isinstance(n.value, (int, float)) for n in leaves)


def test_files_and_functions_stay_small():
    for path in FILES:
        assert path.read_text().count("\n") <= 400, path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert node.end_lineno - node.lineno < 80, f"{path}:{node.lineno} {node.name}"


def undocumented(path):
    """Modules, functions, classes and methods (of private classes too) without a docstring, by their names."""
    tree = ast.parse(path.read_text())
    if tree.body and not ast.get_docstring(tree):
        yield f"{path.relative_to(ROOT)}"
    owners = [tree, *(n for n in ast.walk(tree) if isinstance(n, ast.ClassDef))]
    for owner in owners:
        for node in owner.body:
            kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
            public = isinstance(node, kinds) and not node.name.startswith("_") and node.name != "main"
            if public and not ast.get_docstring(node):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"


@pytest.mark.parametrize("folder", ["dlnphase", "bench", "tools", "gallery", "gauntlet"])
def test_every_public_name_is_documented(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert [words for path in files for words in undocumented(path)] == []


def test_the_public_namespace_resolves():
    code = (
        "import dlnphase, sys\n"
        "assert not {'torch', 'scipy', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "for name in dlnphase.__all__: assert getattr(dlnphase, name) is not None, name\n"
        "assert callable(dlnphase.train) and 'matplotlib' not in sys.modules\n"
        "try: dlnphase.nothing\nexcept AttributeError as error: assert 'nothing' in str(error)\n"
        "else: raise SystemExit('no error')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# Heavy packages that each command may load: an import is a cost that every call pays.
LOADS = {
    "--help": set(),
    "plot --help": set(),
    f"plot {EXAMPLE} --out OUT": {"numpy", "yaml", "matplotlib"},
    f"plot {EXAMPLE} --format csv --out OUT": {"numpy", "yaml"},
    f"plot {EXAMPLE} --list": {"numpy", "yaml"},
}
HEAVY = {"torch", "scipy", "numpy", "yaml", "matplotlib", "plotly", "plotext", "pandas", "distributed", "sympy"}


@pytest.mark.parametrize("command", LOADS)
def test_a_command_loads_what_it_uses(command, tmp_path):
    code = (
        "import sys\n"
        "from dlnphase.cli.app import run\n"
        "assert run(sys.argv[1:]) == 0\n"
        f"print('loaded', *sorted({HEAVY!r} & set(sys.modules)))\n"
    )
    words = [str(tmp_path / "figures") if word == "OUT" else word for word in command.split()]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120, check=True)
    assert set(done.stdout.split("loaded")[-1].split()) <= LOADS[command]


def test_architecture_names_every_room():
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = {unit(path) for path in FILES}
    missing = [name for name in rooms if not name.startswith("__") and f"  {name}" not in text]
    assert not missing


def test_every_reason_to_end_is_in_the_table():
    """Words in functions named after reasons, and those written into the reasons of a record."""
    told = set()
    for path in [*PACKAGE.joinpath("dynamics").rglob("*.py"), *PACKAGE.joinpath("training").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            named = isinstance(node, ast.FunctionDef) and node.name in ("reason", "_reason", "_reasons")
            written = isinstance(node, ast.Assign) and any("reason" in ast.unparse(target) for target in node.targets)
            if named or written:
                words = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
                told |= {word for word in words if re.fullmatch("[a-z_]+", word)}
    assert {"converged", "max_time"} <= told <= set(REASONS)


INITS = sorted(path for path in FILES if path.name == "__init__.py" and path.parent != PACKAGE)


@pytest.mark.parametrize("path", INITS, ids=lambda p: p.parent.relative_to(PACKAGE).as_posix())
def test_every_room_says_what_it_is_for(path):
    """What enters, what leaves, which file to open for what, what to keep: and every file that is named exists."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert 20 <= text.count("\n") <= 40
    places = [text.find(word) for word in ("\nEnters: ", "\nLeaves: ", "\nOpen\n", "\nKeep\n")]
    assert -1 not in places and places == sorted(places)
    for name in named_files(text):
        assert any((folder / name).is_file() for folder in (path.parent, PACKAGE, ROOT)), name


def named_files(text):
    """What a text names as a file."""
    return re.findall(r"[\w/-]+\.(?:py|css|js|md|npz|yaml)\b", re.sub(r"\w+\.(npz|yaml)\b", "", text))


def test_the_checker_of_proofs_shares_no_code_with_the_provers():
    rooms = {"checking": {"balls"}, "path_checking": {"balls", "checking", "series"}, "series": {"balls"}}
    for name, allowed in rooms.items():
        modules = [module for module, _, _ in imports(PACKAGE / "proofs" / f"{name}.py")]
        assert {m.split(".")[2] for m in modules if m.startswith("dlnphase.proofs.")} <= allowed


def test_the_files_of_a_change_exist():
    """The table "Where a change goes": every file, and every table in capitals in one of them."""
    text = (ROOT / "docs" / "architecture.md").read_text().split("## Where a change goes")[1].split("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 12
    for row in rows:
        open_, tests = row.split("|")[2], row.split("|")[4]
        files = [PACKAGE / name for name in named_files(open_)] + [ROOT / name for name in named_files(tests)]
        assert len(named_files(open_)) in (1, 2, 3) and len(files) > 1
        assert all(path.is_file() for path in files), row
        for table in re.findall(r"`([A-Z]{3,})`", open_):
            assert any(re.search(rf"^{table}\b.* = ", path.read_text(), re.MULTILINE) for path in files), table
