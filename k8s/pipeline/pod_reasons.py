"""Why the container of a pod does not start, and whether waiting helps. For programs of pods and for deploys alike.

The reasons are the kubelet's (pkg/kubelet/images/types.go, pkg/kubelet/kuberuntime). Whoever gives up on one lets it stand for
a while first, since somebody may just be mending its cause. A container that crashes is not among them: in a deploy, what it
needs may come up beside it. Only `promote`, which changes one thing in a set that ran, may give up after a few crashes.
"""

from __future__ import annotations

import re

# The container is only on its way.
ON_ITS_WAY = frozenset({"", "PodInitializing", "ContainerCreating"})
# Not an image name; an image that is not on the node and may not be pulled; a Secret, ConfigMap or key that is missing, or a
# user that is not allowed; a command, a mount or a device that the runtime cannot set up. Somebody must mend one of these.
_HOPELESS = frozenset({"InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "RunContainerError"})
# A pull that fails may go well the next time, unless the registry says that there is no such image for us.
_PULLS = frozenset({"ErrImagePull", "ImagePullBackOff"})
_NO_SUCH_IMAGE = re.compile(r"not ?found|manifest unknown|does not exist|denied|unauthorized|forbidden", re.IGNORECASE)


def hopeless(reason: str, message: str) -> bool:
    """Whether a container that waits for this reason never starts by waiting longer.

    Args:
        reason: of the container's `waiting` state.
        message: of the same state.
    """
    return reason in _HOPELESS or (reason in _PULLS and bool(_NO_SUCH_IMAGE.search(message)))
