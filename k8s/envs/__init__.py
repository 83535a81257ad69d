"""The environments: where manifests go, and what differs there."""
