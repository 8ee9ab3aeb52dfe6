"""Results on disk. Frozen dataclasses ⇄ YAML, arrays ⇄ npz, atomic writes, one process per directory.

In short, for a new command:

1. declare a frozen dataclass with ``SCHEMA: ClassVar[str]``, a ``config`` (settings) and a ``provenance``;
2. ``with OutputDirectory(path, main="x.yaml", mode=mode_of(overwrite, resume)) as out:`` around the work;
3. ``commit(out.path, {"x.npz": npz_bytes(arrays), "x.yaml": result_text(result)}, main="x.yaml")``;
4. ``load_result(path, Cls)`` reads it back; ``refuse_different(old_config, new_config, path)`` guards ``--resume``.
"""

from dlnphase.results.codec import decode, encode, json_ready, memory_only
from dlnphase.results.files import npz_bytes, read_npz
from dlnphase.results.journal import commit, settle, write_atomic
from dlnphase.results.outdir import Mode, OutputDirectory, mode_of, refuse_different
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
    "to_document",
    "write_atomic",
]
