"""`invoke cluster`: a real Kubernetes of one node on this machine, for trying and for tests; never for production.

Everything in it is other people's software, built once from pinned sources (`programs`, lockfiles/single-node/). It runs in
namespaces of its own (`namespaces`, `inside`): processes, mounts and network interfaces end with the first process there, and
what is left to remove is a folder, cgroups and one table of the firewall. `cluster` is the face: up, down, status.

    cluster → addons, parts, checks → namespaces, network, cgroups, registry, certificates, programs → scratch, places
"""
