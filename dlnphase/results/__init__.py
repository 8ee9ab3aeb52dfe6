"""Results on disk. Frozen dataclasses ⇄ YAML, arrays ⇄ npz, atomic writes, one process per directory.

Enters: result objects of the verbs; files of any version that was ever written.
Leaves: files that are whole at every moment; result objects, checked key by key.

In short, for a new command:

1. declare a frozen dataclass with ``SCHEMA: ClassVar[str]``, a ``config`` (settings) and a ``provenance``;
2. ``with OutputDirectory(path, main="x.yaml", mode=mode_of(overwrite, resume)) as out:`` around the work;
3. ``commit(out.path, {"x.npz": npz_bytes(arrays), "x.yaml": result_text(result)}, main="x.yaml")``;
4. ``load_result(path, Cls)`` reads it back; ``there(path, "x.yaml", load, settings)`` guards ``--resume``.

Open

- `train.py`, `trajectory.py`, `observed.py`, `sweep.py`, `detect.py`, `proof.py`, `plot.py`, `recording.py` for
  what one kind of result holds; `load.py` opens any of them;
- `codec.py`, `schema.py`, `versions.py` for dataclasses ⇄ plain values, versions and upgrades; `yamlfile.py`
  for YAML;
- `outdir.py`, `locks.py`, `journal.py`, `naming.py` for directories: who may write, where, and all or nothing;
- `files.py`, `matrixfile.py`, `textcells.py` for arrays and text of users; `configfile.py` for ``--config``;
- `cells.py` for how numbers stand in tables; `provenance.py`, `reading.py`, `tabular.py`, `underway.py` for the rest.

Keep

- Saved and loaded without loss (tests/test_results.py); an old file is read for ever, a newer one refused
  (tests/test_schemas.py). A new key has a default, or the schema a new version.
- Nothing below this room writes a file. Nothing is unpickled (tests/test_house.py).
- Torn by a kill, a signal or a full disk, what was there is there (tests/test_faults.py,
  tests/test_faults_disk.py).
- A result is read without torch: figures read them (tests/test_startup.py).
"""

from dlnphase.results.codec import decode, encode, json_ready, memory_only
from dlnphase.results.files import npz_bytes, read_npz
from dlnphase.results.journal import commit, settle, write_atomic
from dlnphase.results.outdir import Mode, OutputDirectory, mode_of, refuse_different, there
from dlnphase.results.provenance import Clock, Provenance
from dlnphase.results.schema import UPGRADES, load_document, load_result, result_text, to_document
from dlnphase.results.yamlfile import dump_yaml, parse_yaml, read_yaml

__all__ = [
    "UPGRADES",
    "Clock",
    "Mode",
    "OutputDirectory",
    "Provenance",
    "commit",
    "decode",
    "dump_yaml",
    "encode",
    "json_ready",
    "load_document",
    "load_result",
    "memory_only",
    "mode_of",
    "npz_bytes",
    "parse_yaml",
    "read_npz",
    "read_yaml",
    "refuse_different",
    "result_text",
    "settle",
    "there",
    "to_document",
    "write_atomic",
]
