"""The verb ``detect-saddles``: a path of ours or of another code in, its visits and certificates out.

Enters: a directory of ``train``, an .npz with times and layers (or A alone), a folder of checkpoints, a
recording.
Leaves: a :class:`~dlnphase.results.detect.DetectResult`: each visit with its critical point, what kind it is
and why, how it was left, how far it lies from the greedy path; with ``--prove`` a proof file.

Open

- `run.py` for the verb, from source to result; `judging.py` for what is told of one visit;
- `sources.py` for what a path may be read from, `own_run.py` for runs of ours, `checkpoints.py` for folders of
  checkpoints (a file format is a line in setup/states.py), `trace.py` for the path of one network;
- `speed.py`, `sparse.py` for how another code's time relates to ours and what records far apart may have
  missed; `notes.py` for what a reader should know of that;
- `proofs.py` and `flow.py` for ``--prove`` and ``--check``: they hand over to proofs/;
- `recorder.py`, `lightning.py`, `linear.py` for recording somebody else's training, `sentences.py` for one
  sentence.

Keep

- What a visit is, and which critical point it visits, is decided in critical/visited.py, for ``train`` and here
  alike (tests/test_visited.py): a run looked at twice tells the same.
- Nothing in a source is trusted or run: bounds on sizes before memory is taken, never a pickle
  (tests/test_mutations.py, tests/test_checkpoints.py).
- What a path of another code cannot tell is left out or undecided, and the notes say so (tests/test_detect.py).
- The recorder never changes the training that it watches, and what it wrote survives a kill
  (tests/test_recorder.py).
"""
