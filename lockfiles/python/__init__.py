"""Python packages: the index, the resolver, metadata, and wheels that no index has."""
