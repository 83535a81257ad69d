"""The pytest suite of the ladder, which `invoke smoke` runs."""
