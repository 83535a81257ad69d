"""The programs of k8s/pipeline/, imported as they import each other in a pod: as files side by side.

Under their package's name, by which types are checked, they are the very same modules: an error raised by one is the error that
another catches.
"""

from __future__ import annotations

import importlib
import sys

import k8s.pipeline
from common import paths

_FOLDER = paths.K8S / "pipeline"

sys.path.insert(0, str(_FOLDER))
for _name in sorted(file.stem for file in _FOLDER.glob("*.py") if file.stem != "__init__"):
    _module = importlib.import_module(_name)
    sys.modules[f"k8s.pipeline.{_name}"] = _module
    setattr(k8s.pipeline, _name, _module)
sys.path.remove(str(_FOLDER))
