"""What is built: the image specs and the builder that turns locked debs and wheels into an OCI image layout."""
