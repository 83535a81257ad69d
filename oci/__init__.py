"""The OCI formats that images, smoke, registry and pods share: references, layouts, the registry client, signed statements."""
