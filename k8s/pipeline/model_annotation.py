"""How a workload says which model it serves, and who changes that. For programs of pods and for deploys alike."""

# Of the pod template: the model's reference, by digest. The init container `fetch` reads it and follows it.
ANNOTATION = "pinwheel.io/model"
# The field manager under which the pipeline's deploy step sets it.
MANAGER = "pinwheel-pipeline"
# On what is made beside a Deployment that serves a model, to try an image and a model before it is touched: its name.
PREFLIGHT_OF = "pinwheel.io/preflight-of"


def preflight(name: str) -> str:
    """What is tried before the thing of this name is touched is called so; short enough for the value of a label."""
    return f"{name[:53]}-preflight"
