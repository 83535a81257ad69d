"""A client of the OCI distribution spec 1.1, as far as pushes, verifiers and the programs of pods need it."""
