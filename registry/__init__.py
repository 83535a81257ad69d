"""Where images live: pushed by digest, with proof beside them: signature, SBOM, provenance, smoke result; made, read, verified.

Formats are others': in-toto statements in DSSE envelopes, stored and signed as cosign does. docs/proof.md tells what a person
needs to know of them, docs/adr/0014-attestations-in-cosigns-tags.md why these.
"""
