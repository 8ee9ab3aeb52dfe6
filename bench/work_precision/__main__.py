"""Run the sweep and write it down: ``python -m bench.work_precision``; what is in the file already is not run again.

``--draw`` makes figure and tables of docs/work-precision.md from the file; ``--anew`` forgets what it holds.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import scipy.integrate

from bench.work_precision.problems import DIMS, SCALES, Problem, problem
from bench.work_precision.references import Crossing, crossings, crossings_again
from bench.work_precision.solvers import DENSE, METHODS, OURS, Walked, walk

ROOT = Path(__file__).resolve().parent.parent.parent
FILE = ROOT / "docs" / "data" / "work-precision.json"
LIMIT = 4.0  # seconds of CPU that one run may take
SHORT = 1.0  # runs below this are repeated, and the quicker one counts
TOLERANCES = {True: (1e-2, 1e-3, 1e-4, 1e-5, 1e-6), False: (1e-3, 1e-4, 1e-5, 1e-6, 1e-8, 1e-10)}  # ours, theirs
FIRST_TOL = 1e-5  # of the first reference
SECOND_RTOL = {1e-1: 1e-8, 1e-3: 1e-8, 1e-6: 1e-5}  # of the second: double precision bears no less at α = 1e-6
HOPELESS = ("time", "memory")  # after these smaller tolerances are not tried: they take as long or longer
LARGEST_JACOBIAN = 10**9  # bytes of P × P numbers from which a dense Jacobian is not tried

Entry = dict[str, Any]


def dwell_times(times: list[float]) -> np.ndarray:
    """How long the path stays at the start, and on the two plateaus after it: between the first three crossings."""
    return np.diff(np.array([0.0, *times[:3]]))


def apart(found: list[Crossing], true: list[Crossing]) -> dict[str, float]:
    """The largest relative error of a dwell time, and of A at its crossings."""
    dwell = dwell_times([c.time for c in true])
    matrices = [
        np.linalg.norm(a.matrix - b.matrix) / np.linalg.norm(b.matrix) for a, b in zip(found, true, strict=True)
    ]
    late = np.abs(dwell_times([c.time for c in found]) / dwell - 1)
    return {"dwell": float(np.max(late)), "matrix": float(np.max(matrices))}


def refined(given: Problem, walked: Walked) -> list[Crossing]:
    """From the last step above each level, down to the level by DOP853 or LSODA at 1e-11: the same for all solvers."""
    chain, out = given.chain, []
    for (start, theta), level in zip(walked.brackets, given.levels, strict=True):
        method = "LSODA" if chain.size <= 1000 else "DOP853"
        more: dict[str, Any] = {"jac": lambda t, y: chain.jacobian(y)} if method == "LSODA" else {}
        solver = getattr(scipy.integrate, method)(
            lambda t, y: chain.slope(y), 0.0, theta, math.inf, rtol=1e-11, atol=1e-11 * given.typical, **more
        )
        while chain.excess(solver.y) >= level:
            solver.step()
            assert solver.status == "running"
        inside = solver.dense_output()
        low, high = float(solver.t_old), float(solver.t)
        for _ in range(100):
            middle = 0.5 * (low + high)
            low, high = (low, middle) if chain.excess(inside(middle)) < level else (middle, high)
        out.append(Crossing(start + high, chain.matrix(inside(high))))
    return out


def reference(given: Problem) -> Entry:
    """The two references of a problem, and how far they are apart."""
    started = time.process_time()
    first = crossings(given, FIRST_TOL)
    middle = time.process_time()
    second = crossings_again(given, SECOND_RTOL[given.alpha])
    return {
        "times": [c.time for c in first],
        "matrices": [c.matrix.tolist() for c in first],
        "apart": apart(second, first),
        "seconds": [middle - started, time.process_time() - middle],
    }


def run(given: Problem, true: list[Crossing], method: str, rtol: float, limit: float = LIMIT) -> Entry:
    """One solver at one tolerance: its CPU seconds and errors, or how it failed."""
    entry: Entry = {"size": given.size, "alpha": given.alpha, "method": method, "rtol": rtol}
    if method in DENSE and 8 * given.chain.size**2 > LARGEST_JACOBIAN:
        return entry | {"failure": "memory", "bytes": 8 * given.chain.size**2}
    walked = walk(given, method, rtol, limit)
    if walked.failure is None and walked.seconds < SHORT:
        again = walk(given, method, rtol, limit)
        walked = min(walked, again, key=lambda w: w.seconds)
    entry |= {"seconds": walked.seconds, "steps": walked.steps}
    if walked.failure is not None:
        return entry | {"failure": walked.failure, "passed": len(walked.brackets)}
    return entry | apart(refined(given, walked), true)


def sweep(known: Entry, sizes: list[str], scales: list[float]) -> None:
    """Everything that the file does not hold yet; it is written after every run."""
    for size, alpha in ((size, alpha) for size in sizes for alpha in scales):
        given, key = problem(size, alpha), f"{size} {alpha:g}"
        if key not in known["references"]:
            known["references"][key] = reference(given)
            save(known)
            print(key, "references apart by", known["references"][key]["apart"], flush=True)
        kept = known["references"][key]
        true = [Crossing(t, np.array(a)) for t, a in zip(kept["times"], kept["matrices"], strict=True)]
        here = [e for e in known["runs"] if (e["size"], e["alpha"]) == (size, alpha)]
        done = {(e["method"], e["rtol"]) for e in here}
        over = {e["method"] for e in here if e.get("failure") in HOPELESS}
        for method in METHODS:
            for rtol in TOLERANCES[method in OURS]:
                if method in over or (method, rtol) in done:
                    continue
                entry = run(given, true, method, rtol)
                known["runs"].append(entry)
                save(known)
                print({k: v for k, v in entry.items() if k != "bytes"}, flush=True)
                if entry.get("failure") in HOPELESS:
                    break


def save(known: Entry) -> None:
    """Write the file whole or not at all."""
    part = FILE.with_suffix(".part")
    part.write_text(json.dumps(known, indent=1) + "\n")
    os.replace(part, FILE)


def main() -> None:
    """Run what is missing, or draw what is there."""
    parser = argparse.ArgumentParser(prog="python -m bench.work_precision", description=__doc__)
    parser.add_argument("--draw", action="store_true", help="figure and tables of the page, from the file alone")
    parser.add_argument("--size", choices=DIMS, action="append", help="these networks alone (all)")
    parser.add_argument("--alpha", type=float, choices=SCALES, action="append", help="these scales alone (all)")
    parser.add_argument("--anew", action="store_true", help="run everything again")
    options = parser.parse_args()
    fresh = options.anew or not FILE.exists()
    empty: Entry = {"taken": str(datetime.date.today()), "references": {}, "runs": []}
    known = empty if fresh else json.loads(FILE.read_text())
    if not options.draw:
        sweep(known, options.size or list(DIMS), options.alpha or list(SCALES))
    else:
        from bench.work_precision.page import write_page

        write_page(known)


if __name__ == "__main__":
    main()
