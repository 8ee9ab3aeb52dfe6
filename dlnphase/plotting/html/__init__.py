"""The page to send: results with their tables and figures in one file that asks nothing of a network or a server.

Enters: results as :class:`~dlnphase.plotting.sources.ResultSource`, and a picture, a caption and the numbers of every
figure.
Leaves: the text of one HTML document, the same for the same results.

Open

- `page.py` for the document: overview, figures, tables, settings, provenance; page.css and page.js for its
  looks and what moves;
- `tables.py` for the tables: what the terminal shows, in words and numbers;
- `live.py` for the records behind the figures that move, thinned; `library.py` for the plotting library,
  compressed;
- `markup.py` for elements.

Keep

- Text that comes from a file is escaped by `markup.py`, always: it can only become text. The page may fetch
  nothing, by its own policy, whatever is in a file (tests/test_report.py).
- The page is drawn from results alone, like every figure; a number in a table is the one that the terminal
  shows.
- It is read in a real browser by tests/test_report.py: a change of page.js shows there or nowhere.
"""
