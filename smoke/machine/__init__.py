"""The machine of a smoke run: its engine, its GPUs, and what is loaded into the engine."""
