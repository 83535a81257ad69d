"""The audit. `samples/`: advisories as PyPA, the Go project, OpenSSF and Debian publish them, less most of their prose."""
