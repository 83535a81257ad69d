"""The programs of the training pipeline and of the model's pull.

They run in pods, by the images' own `python`: as the package `pinwheel_pipeline` below /opt/pinwheel (`[[files]]` in
images/shared.toml), beside the parts of `oci` and `common` that they need. They import these, each other, and what the images
hold: nothing else of Pinwheel is there.
"""
