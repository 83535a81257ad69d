"""The rungs of the ladder: their table, the pytest plugin that orders them, and the work that they look at and judge."""
