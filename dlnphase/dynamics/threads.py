"""Parts of a batch on threads of their own, with the same records in the same order as without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

import torch

from dlnphase.dynamics.records import Record

PART = 8  # members from which a part is worth a thread


def parts(members: Sequence[int], device: torch.device) -> list[list[int]]:
    """Members in as many parts, equal to one, as there are threads that torch may use for them."""
    if not members:
        return []
    count = max(1, min(torch.get_num_threads(), len(members) // PART)) if device.type == "cpu" else 1
    size = -(-len(members) // count)
    return [list(members[i : i + size]) for i in range(0, len(members), size)]


def in_threads(paths: Sequence[Iterator[Record]]) -> Iterator[list[Record]]:
    """Rounds of one record of each path, computed at the same time; none goes on before all of them have been used.

    A record may be asked for its weights until the next round, as :class:`~dlnphase.dynamics.records.Record` promises.
    A round that is interrupted comes to its end, and is told, before the interrupt goes on.
    """
    if len(paths) < 2:
        for path in paths:
            yield from ([record] for record in path)
        return

    @torch.no_grad()  # grad mode belongs to a thread
    def advance(path: Iterator[Record]) -> Record | None:
        return next(path, None)

    alive = list(paths)
    with ThreadPoolExecutor(len(paths), "part", torch.set_num_threads, (1,)) as pool:
        while alive:
            interrupt = None
            futures = [pool.submit(advance, path) for path in alive]
            try:
                wait(futures)
            except KeyboardInterrupt as error:
                interrupt = error
            told = [(path, record) for path, future in zip(alive, futures, strict=True) if (record := future.result())]
            if told:
                yield [record for _, record in told]
            if interrupt is not None:
                raise interrupt
            alive = [path for path, _ in told]
