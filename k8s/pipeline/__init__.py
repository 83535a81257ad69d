"""The programs of the training pipeline and of the model's pull.

They run inside pods, by the images' own `python`, from a ConfigMap that holds them as files side by side: nothing of
Pinwheel is there, so they import the standard library, PyYAML and each other alone. `python -m k8s.tools` makes the ConfigMaps.
"""
