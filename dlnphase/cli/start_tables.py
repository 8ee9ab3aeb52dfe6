"""Tables of what several starts did: how long they dwelt, which jumps they made, at which rank they ended."""

from __future__ import annotations

from rich.table import Table

from dlnphase.cli.tables import new_table
from dlnphase.findings import Distributions, StartShare
from dlnphase.results.cells import MISSING, number

GROUNDS = {
    "visits": "",
    "basins": "; jumps, under noise: from the rank the same descent goes to without noise, from records along the path",
    None: "; noise hides critical points, so jumps are not told",
}


def dwell_table(told: Distributions) -> Table:
    """Rank by rank, the times that starts stayed there."""
    rows = []
    for d in told.dwells:
        spans = (number(d.median), f"{number(d.q25)} – {number(d.q75)}", f"{number(d.q10)} – {number(d.q90)}")
        rows.append((str(d.rank), f"{d.starts}/{told.starts}", *spans, number(d.mean), number(d.std, 2)))
    names = ("rank", "left by", "median", "25–75 %", "10–90 %", "mean", "± std")
    return new_table(f"Dwell times over {told.starts} starts", names, rows, _words(told))


def _words(told: Distributions) -> str:
    words = "left by: starts that jumped away from that rank; the others never left it or were never there"
    again = any(d.count > d.starts for d in told.dwells)
    return words + ("; a start that was there more than once counts each time" if again else "")


def jump_table(told: Distributions) -> Table:
    """Jumps and final ranks, each with the share of the starts and its interval."""
    rows = [[f"{j.from_rank} → {j.to_rank}", *_share(j.made), number(j.median_time)] for j in told.jumps]
    for name, share in (("any up", told.up), ("any down", told.down)):
        rows.append([name, *(("not told", MISSING, MISSING) if share is None else _share(share)), ""])
    rows += [[f"end at {e.rank}", *_share(e.ended), ""] for e in told.ends]
    names = ("rank", "starts", "share", "95 % interval", "median time")
    words = "95 % interval: of the probability behind the share (Wilson)"
    left = told.starts - sum(e.ended.starts for e in told.ends)
    words += f"; {left} diverged and ended at no rank" if left else ""
    return new_table("Jumps and ends", names, rows, words + GROUNDS[told.jumps_by])


def _share(share: StartShare) -> list[str]:
    low, high = share.ci95
    return [f"{share.starts}/{share.of}", f"{100 * share.share:.0f} %", f"{100 * low:.1f} – {100 * high:.1f} %"]
