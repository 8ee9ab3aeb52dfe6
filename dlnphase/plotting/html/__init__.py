"""The page to send: results with their tables and figures in one file that asks nothing of a network or a server."""
