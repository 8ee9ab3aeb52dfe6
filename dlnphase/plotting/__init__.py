"""The verb ``plot``: from results on disk to figures, their numbers and the page.

A figure is drawn from result objects alone: nothing is computed anew that the analysis decided, so a figure and
a table can never disagree.

Enters: paths of results, and :class:`~dlnphase.settings.PlotSettings`.
Leaves: matplotlib Figures, their bytes in png, svg or pdf, their numbers as csv, one html page, and a
:class:`~dlnphase.results.plot.PlotResult` that says what was drawn from what.

Open

- `draw.py` for the verb: which figures are drawn, and into which files;
- the file of its name for a kind of figure (`loss.py`, `phase.py`, …): ``figure`` draws it, ``data`` gives its
  numbers, ``shows`` says whether there is anything to draw; the table of kinds is in settings/plot.py;
- `sources.py` for how results are found, told apart and captioned; `listing.py` for one line a result;
- `style.py` for sizes, colours, captions and saving; `tidy.py` for labels that lie over each other;
- `timeline.py` and `timeaxis.py` for all figures over time; `plane.py` for the plane that paths are seen on;
- `data.py` for tables of numbers, `latex.py` for captions, `terminal.py` for figures made of characters;
- html/ for the page.

Keep

- matplotlib is imported when something is drawn, here and nowhere else; a csv needs none of it
  (tests/test_house.py).
- No pyplot, no global state: a figure is a plain object.
- What a figure shows is what the result says, number for number (tests/test_plotting.py,
  tests/test_tidy_data.py), and nothing lies over anything else (tests/test_plotting_small.py).
"""
