"""``python -m gauntlet``: run cases, one, or the rest of an interrupted run; print a table, write the page of the docs.

Exit code 1 when any case is wrong without a word, 130 when interrupted (what is done is kept).
"""

from __future__ import annotations

import argparse
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from gauntlet import cases, certificates, distances, flows, intervals, jumps, noise
from gauntlet.table import table, write_page
from gauntlet.verdict import Verdict, append, read

ROOT = Path(__file__).resolve().parent.parent
Judge = Callable[[str], Verdict]
KINDS: dict[str, tuple[list[str], Judge]] = {
    "flow": (list(cases.CLASSES), flows.judge),
    "distance": (list(cases.DISTANCE_CLASSES), distances.judge),
    "certificate": (list(cases.CERTIFICATE_CLASSES), certificates.judge),
    "interval": (list(intervals.CLASSES), intervals.judge),
    "noise": (list(noise.CLASSES), noise.judge),
    "jump": (list(jumps.CLASSES), jumps.judge),
}
FEWER = 6  # of all kinds: so many times fewer distances and certificates than flows, and each of the others once


def main() -> int:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="python -m gauntlet", description=__doc__)
    parser.add_argument("kind", nargs="?", default="all", choices=[*KINDS, "all", "page"], help="what to judge (all)")
    parser.add_argument("-n", "--count", type=int, default=200, help="cases; of all: flows (200)")
    parser.add_argument("--hours", type=float, default=float("inf"), help="stop after so many hours")
    parser.add_argument("--seed", type=int, help="seed of the cases (default: a new one, printed)")
    parser.add_argument("--only", action="append", default=[], metavar="CLASS", help="these classes alone")
    parser.add_argument("--case", action="append", default=[], metavar="CLASS:SEED:NUMBER", help="one case again")
    parser.add_argument("--out", type=Path, help="results file; cases it holds are not run again")
    parser.add_argument("results", nargs="*", type=Path, help="page: results files to write docs/accuracy.md from")
    given = parser.parse_args()
    if given.kind == "page":
        write_page([verdict for path in given.results for verdict in read(path)], ROOT / "docs" / "accuracy.md")
        return 0
    try:
        if given.case:
            if given.kind not in KINDS:
                parser.error(f"--case: found with {given.kind}, expected {', '.join(KINDS)}")
            return _again(given.kind, given.case)
        return _run_all(given)
    except KeyboardInterrupt:
        print("interrupted; what is done is kept", file=sys.stderr)
        return 130


def _again(kind: str, names: list[str]) -> int:
    bad = 0
    for name in names:
        verdict = KINDS[kind][1](name)
        _tell(verdict)
        bad += verdict.status == "fails"
    return int(bad > 0)


def _run_all(given: argparse.Namespace) -> int:
    seed = secrets.randbelow(10**6) if given.seed is None else given.seed
    out = given.out or ROOT / "runs" / "gauntlet" / f"{given.kind}-{seed}.jsonl"
    more = "".join(f" --only {name}" for name in given.only)
    print(f"{given.kind}: seed {seed}, {given.count} cases, results in {out}", flush=True)
    print(f"to go on: python -m gauntlet {given.kind} --seed {seed} -n {given.count} --out {out}{more}", flush=True)
    until = time.monotonic() + 3600 * given.hours
    if given.kind != "all":
        return _run(given.kind, given.only, given.count, seed, out, until)
    counts = {"flow": given.count, **{kind: len(KINDS[kind][0]) for kind in ("interval", "noise", "jump")}}
    return max(_run(kind, given.only, counts.get(kind, given.count // FEWER), seed, out, until) for kind in KINDS)


def _run(kind: str, only: list[str], count: int, seed: int, out: Path, until: float) -> int:
    classes, judge = KINDS[kind]
    classes = [name for name in classes if not only or name in only]
    if not classes:
        return 0
    done = {verdict.name: verdict for verdict in read(out) if verdict.kind == kind}
    commit = _commit()
    verdicts = []
    for i in range(count):
        name = f"{classes[i % len(classes)]}:{seed}:{i // len(classes)}"
        if name not in done:
            if time.monotonic() > until:
                break
            done[name] = judge(name)
            done[name].commit = commit
            append(out, done[name])
        verdicts.append(done[name])
        if verdicts[-1].status == "fails":
            _tell(verdicts[-1])
        elif (i + 1) % 50 == 0:
            print(f"{kind}: {i + 1} of {count}", flush=True)
    print(f"{kind}\n\n{table(verdicts)}\n", flush=True)
    return int(any(verdict.status == "fails" for verdict in verdicts))


def _tell(verdict: Verdict) -> None:
    print(f"{verdict.status}: {verdict.command()}")
    print(f"    {verdict.words}; ended as {verdict.reason or 'nothing'}; reference {verdict.reference or 'none'}")
    for fault in verdict.faults:
        print(f"    {fault}")
    numbers = ", ".join(f"{name} {value:.2g}" for name, value in verdict.numbers.items())
    print(f"    {numbers}; {verdict.seconds[0]:.2g} s + {verdict.seconds[1]:.2g} s", flush=True)


def _commit() -> str:
    """The last commit that changed the package."""
    done = subprocess.run(
        ["git", "log", "-1", "--format=%h", "--", "dlnphase"], capture_output=True, text=True, cwd=ROOT
    )
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(main())
