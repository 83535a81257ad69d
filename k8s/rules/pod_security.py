"""Pod Security Standards, baseline and restricted, as the admission of a namespace that enforces them judges pods.

Every row of the standard's tables (kubernetes.io, Pod Security Standards; k8s.io/pod-security-admission, policy/). Admission
refuses the pods, not the workload: a Deployment would be taken and never get a pod.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from k8s.objects import pods
from k8s.objects.findings import Finding, Path, rule
from k8s.objects.manifests import Manifest
from k8s.objects.pods import Template, items, mapping
from k8s.rules.whole_set import words

ENFORCE = "pod-security.kubernetes.io/enforce"
_CAPABILITIES = {
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
}
_SELINUX = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_APPARMOR_VALUE = re.compile(r"runtime/default|localhost/.*|")
# Of restricted; an image volume is read-only and has no way to the node.
_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_CALLS = ("livenessProbe", "readinessProbe", "startupProbe", ("lifecycle", "postStart"), ("lifecycle", "preStop"))
# Where, what is wrong, what to do.
_Wrong = tuple[Path, str, str]


def check(objects: Sequence[Manifest]) -> Iterator[Finding]:
    """What would not be let into the namespaces among these objects."""
    levels = {one.name: mapping(one.metadata.get("labels")).get(ENFORCE) for one in objects if one.kind == "Namespace"}
    for manifest in objects:
        level = levels.get(manifest.namespace)
        if level in ("baseline", "restricted"):
            for template in pods.templates(manifest):
                yield from _enforced(template, str(level))


@rule("pod-security")
def _enforced(template: Template, level: str) -> Iterator[Finding]:
    why = f"the namespace {template.manifest.namespace} enforces Pod Security {level}"
    found = [*_baseline(template, _CAPABILITIES)]
    if level == "restricted":
        found = [*_baseline(template, {"NET_BIND_SERVICE"}), *_restricted(template)]
    for path, what, fix in found:
        yield template.manifest.finding(path, f"{what}, and {why}", fix)


def _contexts(template: Template) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The security contexts: of the pod and of every container."""
    yield template.place("securityContext"), mapping(template.spec.get("securityContext"))
    for path, container in template.containers():
        yield (*path, "securityContext"), mapping(container.get("securityContext"))


def _baseline(template: Template, capabilities: set[str]) -> Iterator[_Wrong]:
    """What baseline refuses; restricted lets fewer capabilities be added."""
    spec = template.spec
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield template.place(name), f"{name} is set", "remove it"
    for number, volume in enumerate(items(spec, "volumes")):
        if "hostPath" in volume:
            fix = "use a claim, a ConfigMap, a Secret or an emptyDir"
            yield template.place("volumes", number, "hostPath"), "a hostPath volume", fix
    for path, own in _contexts(template):
        for field, what, fix in _context(own, capabilities):
            yield (*path, *field), what, fix
    for path, container in template.containers():
        for number, port in enumerate(items(container, "ports")):
            if port.get("hostPort"):
                yield (*path, "ports", number, "hostPort"), "a hostPort", "remove it"
        for call in _CALLS:
            steps: Path = (call,) if isinstance(call, str) else call
            handler = mapping(container.get(str(steps[0])))
            for step in steps[1:]:
                handler = mapping(handler.get(str(step)))
            for kind in ("httpGet", "tcpSocket"):
                if mapping(handler.get(kind)).get("host"):
                    yield (*path, *steps, kind, "host"), "it calls another host than the pod", "remove host"
    notes = mapping(_metadata(template).get("annotations"))
    for key, value in notes.items():
        if key.startswith(_APPARMOR) and not _APPARMOR_VALUE.fullmatch(str(value)):
            path = (*template.path, "metadata", "annotations", key)
            yield path, f"the AppArmor profile {value}", "write runtime/default, or a profile of the node: localhost/…"


def _metadata(template: Template) -> Mapping[str, Any]:
    here: Any = template.manifest.body
    for step in (*template.path, "metadata"):
        here = here[step] if isinstance(step, int) and isinstance(here, list) else mapping(here).get(str(step))
    return mapping(here)


def _context(own: Mapping[str, Any], capabilities: set[str]) -> Iterator[_Wrong]:
    """What baseline refuses in one security context."""
    if own.get("privileged"):
        yield ("privileged",), "it is privileged", "remove it"
    if mapping(own.get("windowsOptions")).get("hostProcess"):
        yield ("windowsOptions", "hostProcess"), "it runs in the host itself (hostProcess)", "remove it"
    more = sorted(set(words(mapping(own.get("capabilities")).get("add"))) - capabilities)
    if more:
        fix = f"remove them; only {', '.join(sorted(capabilities))} may be added"
        yield ("capabilities", "add"), f"it adds capabilities ({', '.join(more)})", fix
    selinux = mapping(own.get("seLinuxOptions"))
    if (selinux.get("type") or "") not in _SELINUX:
        fix = f"write {', '.join(sorted(_SELINUX - {''}))}, or none"
        yield ("seLinuxOptions", "type"), f"the SELinux type {selinux['type']}", fix
    for name in ("user", "role"):
        if selinux.get(name):
            yield ("seLinuxOptions", name), f"it sets the SELinux {name}", "remove it"
    if own.get("procMount") not in (None, "", "Default"):
        yield ("procMount",), f"procMount is {own['procMount']}", "remove it"
    for name in ("appArmorProfile", "seccompProfile"):
        kind = mapping(own.get(name)).get("type")
        if kind is not None and kind not in ("RuntimeDefault", "Localhost"):
            yield (name,), f"{name} is {kind}", f"write {name}: {{type: RuntimeDefault}}"
    for number, one in enumerate(items(own, "sysctls")):
        if one.get("name") not in _SYSCTLS:
            yield (
                ("sysctls", number, "name"),
                f"it sets {one.get('name')}",
                "remove it; only what the kernel keeps apart may be set",
            )


def _restricted(template: Template) -> Iterator[_Wrong]:
    """What restricted refuses beyond baseline."""
    spec = template.spec
    for number, volume in enumerate(items(spec, "volumes")):
        for kind in sorted(set(volume) - {"name", "hostPath"} - _VOLUMES):
            yield (
                template.place("volumes", number, kind),
                f"a {kind} volume",
                "use a claim, a ConfigMap, a Secret or an emptyDir",
            )
    pod = mapping(spec.get("securityContext"))
    windows = mapping(spec.get("os")).get("name") == "windows"
    # The pod's own word is judged as well, though each of its containers may say otherwise.
    own_words = [mapping(container.get("securityContext")) for _, container in template.containers()]
    if pod.get("runAsUser") == 0 and all("runAsUser" in own for own in own_words):
        yield template.place("securityContext", "runAsUser"), "it runs as root", "write the image's own user, 10001"
    if pod.get("runAsNonRoot") is False and all("runAsNonRoot" in own for own in own_words):
        yield template.place("securityContext", "runAsNonRoot"), "runAsNonRoot is not true", "write runAsNonRoot: true"
    for path, container in template.containers():
        own = mapping(container.get("securityContext"))
        for field, what, fix in _lacks(pod, own, windows=windows):
            yield (*path, "securityContext", *field), what, fix


def _lacks(pod: Mapping[str, Any], own: Mapping[str, Any], *, windows: bool) -> Iterator[_Wrong]:
    """What a container's security context lacks. Windows knows neither capabilities nor seccomp."""
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield ("runAsNonRoot",), "runAsNonRoot is not true", "write runAsNonRoot: true"
    if own.get("runAsUser", pod.get("runAsUser")) == 0:
        yield ("runAsUser",), "it runs as root", "write the image's own user, 10001"
    if windows:
        return
    if own.get("allowPrivilegeEscalation") is not False:
        yield ("allowPrivilegeEscalation",), "allowPrivilegeEscalation is not false", "write allowPrivilegeEscalation: false"
    if "ALL" not in words(mapping(own.get("capabilities")).get("drop")):
        yield ("capabilities", "drop"), "it keeps capabilities", 'write capabilities: {drop: ["ALL"]}'
    if not mapping(own.get("seccompProfile")) and not mapping(pod.get("seccompProfile")):
        yield ("seccompProfile",), "no seccomp profile", "write seccompProfile: {type: RuntimeDefault}"
