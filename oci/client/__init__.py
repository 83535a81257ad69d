"""A client of the OCI distribution spec 1.1, as far as a push needs it."""
