"""Convex costs on the end-to-end matrix, and the tasks they come from."""
