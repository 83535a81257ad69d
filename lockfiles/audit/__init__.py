"""`invoke audit`: what is locked or runs, against the advisories of today; read by ourselves, with no scanner that runs."""
