"""What is under way is a state: resumed between any two rounds it goes on to the same bits.

Each walk is followed once, and its state packed after every round. Others, set up anew, resume every few of these
states and must tell the same records in the rounds up to the next of them, and be in the same state after each: by
induction they go on to the end, and one does so here. What a state lacks shows as a number that differs.
"""

import numpy as np
import pytest
import torch
from problems import LogCosh

from dlnphase.backend import resolve_backend
from dlnphase.critical.greedy import GreedyPath
from dlnphase.dynamics import Adam, Draws, GradientDescent, GradientFlow, HeavyBall, Muon
from dlnphase.dynamics.state import State, pack, state_fields, unpack
from dlnphase.errors import InputError
from dlnphase.settings import TrainSettings
from dlnphase.setup.build import build_start, build_task

EVERY = 7  # rounds; no multiple of the 4 between two alignments of the frames, or of the 3 between two measurements
CPU = torch.device("cpu")
SMALL = {"task": "factorization", "shape": "4x3", "singular_values": "3,1", "depth": 3, "width": 12, "gamma": 2.0}
FAR = {"depth": 2, "gamma": 11.0}  # α = 6e-6: unlearned modes are so small that they need frames of their own
DIAGONAL = torch.diag(torch.tensor([2.0, 1.0, 0.5])).double()


def flow(cost=None, options=None, **changes):
    """Sets up gradient flow from settings, as often as it is called."""
    return _walk(GradientFlow, cost, options or {}, changes)


def descent(options=None, noise=None, **changes):
    usual = {"lr": 0.01, "max_steps": 300, "tol": 1e-3}

    def walk(start, cost, **options):
        draws = None if noise is None else Draws(cost.observations, np.arange(start.batch), **noise)
        return GradientDescent(start, cost, draws=draws, **options)

    return _walk(walk, None, usual | (options or {}), {"gamma": 1.0} | changes)


def greedy(decay=0.0):
    return lambda: GreedyPath(LogCosh(DIAGONAL[:2, :2]), 2, tol=1e-4, check=False, weight_decay=decay)


def _walk(walk, cost, options, changes):
    settings = TrainSettings(**(SMALL | changes))
    backend = resolve_backend("cpu", settings.dtype)
    task, settings = build_task(settings, backend)
    cost = task.cost if cost is None else cost
    start = build_start(settings, task.cost, backend, settings.seed).network
    return lambda: walk(start, cost, **options)


# What sets a walk up, and where it passes.
WALKS = {
    "descent": (lambda: descent(seeds=3), {"unrecorded", "smaller"}),
    "descent in single precision": (lambda: descent(dtype="float32"), {"unrecorded"}),
    "stabilised": (
        lambda: flow(options={"method": "stabilised", "output_times": [0.5], "max_steps": 60}, seeds=2),
        {"mild", "stabilised", "second"},
    ),
    "explicit": (lambda: flow(options={"method": "explicit", "max_steps": 40, "tol": 0.0}, gamma=1.0), {"frames"}),
    "stiff": (lambda: flow(options={"method": "stiff", "output_times": [1.0, 4.0], "max_steps": 60}), {"noise"}),
    "mild, then stiff, and a batch": (
        lambda: flow(shape="5x4", singular_values="4,2", seeds=3, **FAR),
        {"mild", "second", "frames", "noise", "learned", "smaller"},
    ),
    "completion": (
        lambda: flow(task="completion", shape="4x4", options={"max_steps": 70}, **FAR),
        {"mild", "frames", "noise", "learned"},
    ),
    "regression": (
        lambda: flow(task="regression", options={"max_steps": 90}, **FAR),
        {"mild", "frames", "noise", "learned"},
    ),
    "reduced": (lambda: flow(width=10**6, gamma=1.5), {"mild", "stabilised"}),
    "single precision": (lambda: flow(dtype="float32", options={"tol": 1e-4}), {"mild", "frames", "noise"}),
    "any convex cost": (lambda: flow(cost=LogCosh(DIAGONAL), shape="3x3"), {"mild"}),
    "weight decay": (
        lambda: flow(options={"tol": 0.0, "weight_decay": 0.2, "max_steps": 60}, seeds=2),
        {"mild", "second"},
    ),
    "descent with weight decay": (
        lambda: descent(options={"tol": 0.0, "weight_decay": 0.2, "max_steps": 200, "lr": 0.02}),
        {"unrecorded"},
    ),
    "heavy ball with noise": (
        lambda: descent(
            options={"update": HeavyBall(0.8), "tol": 0.02}, noise={"batch_size": 9, "label_noise": 0.1}, seeds=3
        ),
        {"smaller"},
    ),
    "steps and batches that change": (
        lambda: descent(
            options={"lr": [(0, 0.02), (40, 0.005), (150, 0.01)], "max_steps": 240, "tol": 0.0},
            noise={"batch_size": [(0, 3), (80, 9)]},
        ),
        {"unrecorded"},
    ),
    "muon with noise": (
        lambda: descent(options={"update": Muon(0.9), "max_steps": 240, "tol": 0.0}, noise={"batch_size": 7}),
        {"unrecorded"},
    ),
    "adam": (lambda: descent(options={"update": Adam(0.9), "max_steps": 200}), {"unrecorded"}),
    "narrow": (lambda: flow(width=1, gamma=1.0, options={"method": "stiff"}), {"frames", "learned"}),
    "greedy": (greedy, {"orbit"}),
    "greedy with weight decay": (lambda: greedy(0.3), {"orbit"}),
}


def passing(walk, records):
    """Where a walk is."""
    yield from ["unrecorded"] * (not records)
    if isinstance(walk, GradientDescent):
        yield from ["smaller"] * (len(walk.members) < 3)
    if isinstance(walk, GreedyPath):
        yield from ["orbit"] * (len(walk.points) > 1 and walk.orbit is not None)
    if isinstance(walk, GradientFlow):
        yield from ["mild"] * (walk.mild is not None) + ["second"] * (walk.mild is not None and walk.member > 0)
        yield from ["stabilised"] * bool(walk.mild is not None and walk.mild.method.recurrence)
        for part in walk.flows or ():
            yield from ["smaller"] * (len(part.clocks.members) < 3) + ["learned"] * (part.learned is not None)
            yield from ["frames"] + ["noise"] * (part.framed.noise is not None)


def told(records):
    """Every number of some records, as bytes."""
    out = []
    for r in records:
        columns = (r.members, r.time, r.step, r.evaluations, r.excess, r.gradient_norm, np.ascontiguousarray(r.A))
        columns += () if r.penalty is None else (r.penalty,)
        weights = [w.tobytes() for i in range(len(r.members)) for w in r.weights(i)]
        out.append(([np.asarray(c).tobytes() for c in columns], r.reasons, r.note, weights))
    return out


def as_bytes(arrays):
    return {name: (a.dtype, a.tobytes()) for name, a in arrays.items()}


@pytest.mark.parametrize("name", WALKS)
def test_every_round_goes_on_to_the_same_bits(name):
    make, passes = WALKS[name][0](), WALKS[name][1]
    walk, rounds, seen = make(), [], set()
    for records in walk.rounds():
        rounds.append((told(records), pack(walk.state())))
        seen |= set(passing(walk, records))
    assert seen >= passes and len(rounds) > 20
    for k in range(0, len(rounds), EVERY):
        walk = make()
        walk.resume(unpack(rounds[k][1], CPU))
        assert as_bytes(pack(walk.state())) == as_bytes(rounds[k][1]), k
        goes_on, last = walk.rounds(), k + EVERY if k != EVERY * (len(rounds) // EVERY // 2) else len(rounds)
        for records, state in rounds[k + 1 : last + 1]:
            assert told(next(goes_on)) == records, k
            assert as_bytes(pack(walk.state())) == as_bytes(state), k
        assert last < len(rounds) or next(goes_on, None) is None


def test_parts_on_threads_of_their_own_go_on_to_the_same_bits():
    make = flow(options={"method": "stiff", "max_steps": 6}, seeds=16)
    torch.set_num_threads(2)
    try:
        walk, rounds = make(), []
        for records in walk.rounds():
            rounds.append((told(records), pack(walk.state())))
        assert len(walk.flows) == 2 and len(rounds[0][0]) == 2
        for k in (0, 3):
            walk = make()
            walk.resume(unpack(rounds[k][1], CPU))
            assert [told(records) for records in walk.rounds()] == [records for records, _ in rounds[k + 1 :]]
    finally:
        torch.set_num_threads(1)


# ---- as arrays -----------------------------------------------------------------------------------------


def test_a_tree_comes_back_as_it_was():
    whole = torch.arange(24.0, dtype=torch.float64).view(2, 3, 4)
    tree = {
        "none": None,
        "number": float("nan"),
        "count": 3,
        "word": "x",
        "flag": True,
        "scalar": np.float64(0.1),
        "nested": [1.5, (2, None), {3: [np.inf]}],
        "turned": np.arange(6.0).reshape(2, 3).T,
        "mask": np.array([True, False]),
        "index": torch.tensor([1, 2]),
        "single": torch.ones(2, 1),
        "turned tensor": whole.mT,
        "one of": whole[:1].mT,
        "spread": torch.ones(1, 3).expand(2, 3),
    }
    again = unpack({k: v.copy() for k, v in pack(tree).items()}, CPU)
    assert list(again) == list(tree) and again["nested"] == tree["nested"] and np.isnan(again["number"])
    assert [again[k] for k in ("none", "count", "word", "flag")] == [None, 3, "x", True]
    assert type(again["scalar"]) is np.float64 and again["scalar"] == 0.1
    for name in ("turned", "mask"):
        assert again[name].dtype == tree[name].dtype and (again[name] == tree[name]).all()
        assert again[name].strides == tree[name].strides
    for name in ("index", "single", "turned tensor", "one of", "spread"):
        assert again[name].dtype == tree[name].dtype and torch.equal(again[name], tree[name])
        assert name == "spread" or again[name].stride() == tree[name].stride()


@pytest.mark.parametrize("value", [object(), {"a": {1, 2}}, np.array(["word"]), np.zeros(2, dtype=complex)])
def test_what_is_no_plain_value_is_not_saved(value):
    with pytest.raises(TypeError):
        pack(value)


@pytest.mark.parametrize("arrays", [{}, {"tree": np.zeros(3, dtype=np.uint8)}])
def test_arrays_of_something_else_are_no_state(arrays):
    with pytest.raises(InputError, match="no state of dlnphase"):
        unpack(arrays, CPU)


def test_every_class_of_a_walk_declares_its_attributes():
    """Slots: an attribute that is not declared cannot be born in a method, what is declared is saved or says why."""
    classes = [State]
    for cls in classes:
        classes += cls.__subclasses__()
    moving = [c for c in classes if hasattr(c, "__dataclass_fields__") and c.__module__.startswith("dlnphase.")]
    assert len(moving) > 10
    for cls in moving:
        assert all("__slots__" in vars(c) for c in cls.__mro__[:-1]), cls
        assert state_fields(cls), cls


def test_the_state_of_another_version_is_refused():
    walk = descent()()
    state = walk.state()
    for other in ({**state, "momentum": 0.9}, {k: v for k, v in state.items() if k != "step"}):
        with pytest.raises(InputError, match="GradientDescent of another version of dlnphase"):
            descent()().resume(other)
