"""What a set of manifests may not be: the rules within objects and between them."""
