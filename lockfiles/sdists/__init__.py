"""Building wheels from sdists: the declared backend (PEP 517), its locked requirements, and the closed room it runs in."""
