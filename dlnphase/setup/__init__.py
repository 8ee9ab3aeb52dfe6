"""From settings and a user's files to what a verb works on: backend, task, starting networks, their representation."""
