"""Each row of the Pod Security Standards: what a namespace's level refuses, and what it lets in."""

from __future__ import annotations

import pytest

from tests.k8s.rules.judged import IMAGE, pod, told

SAFE = (
    "securityContext: {allowPrivilegeEscalation: false, runAsNonRoot: true, capabilities: {drop: [ALL]}, "
    "seccompProfile: {type: RuntimeDefault}}"
)


def namespace(level: str) -> str:
    labels = f"pod-security.kubernetes.io/enforce: {level}"
    return f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, labels: {{{labels}}}}}\n---\n"


def context(own: str) -> str:
    return f"securityContext: {{{own}}}"


# Row of the standard's baseline: fields of the pod, fields of the container.
BASELINE = {
    "host_process": ("", context("windowsOptions: {hostProcess: true}")),
    "host_process_of_the_pod": (context("windowsOptions: {hostProcess: true}"), ""),
    "host_network": ("hostNetwork: true", ""),
    "host_pid": ("hostPID: true", ""),
    "host_ipc": ("hostIPC: true", ""),
    "privileged": ("", context("privileged: true")),
    "capabilities": ("", context("capabilities: {add: [SYS_ADMIN]}")),
    "host_path": ("volumes: [{name: h, hostPath: {path: /}}]", ""),
    "host_port": ("", "ports: [{containerPort: 1, hostPort: 1}]"),
    "host_of_a_probe": ("", "livenessProbe: {tcpSocket: {port: 1, host: 10.0.0.1}}"),
    "host_of_a_hook": ("", "lifecycle: {preStop: {httpGet: {port: 1, host: 10.0.0.1}}}"),
    "app_armor": ("", context("appArmorProfile: {type: Unconfined}")),
    "app_armor_of_the_pod": (context("appArmorProfile: {type: Unconfined}"), ""),
    "selinux_type": (context("seLinuxOptions: {type: spc_t}"), ""),
    "selinux_user": ("", context("seLinuxOptions: {user: sysadm_u}")),
    "selinux_role": ("", context("seLinuxOptions: {role: sysadm_r}")),
    "proc_mount": ("", context("procMount: Unmasked")),
    "seccomp": ("", context("seccompProfile: {type: Unconfined}")),
    "sysctls": (context("sysctls: [{name: kernel.msgmax, value: '65536'}]"), ""),
    "init_container": (f"initContainers: [{{name: i, image: '{IMAGE}', securityContext: {{privileged: true}}}}]", ""),
}
# What restricted refuses beyond it, as a change of what it lets in.
RESTRICTED = {
    "volume": ("volumes: [{name: vol, nfs: {server: s, path: /}}]", SAFE),
    "escalation": ("", SAFE.replace("allowPrivilegeEscalation: false, ", "")),
    "root_allowed": ("", SAFE.replace("runAsNonRoot: true, ", "")),
    "root": ("", SAFE.replace("runAsNonRoot", "runAsUser: 0, runAsNonRoot")),
    "root_by_the_pod": ("securityContext: {runAsUser: 0}", SAFE.replace("runAsNonRoot", "runAsUser: 1, runAsNonRoot")),
    "no_seccomp": ("", SAFE.replace(", seccompProfile: {type: RuntimeDefault}", "")),
    "capabilities_kept": ("", SAFE.replace("drop: [ALL]", "drop: [NET_RAW]")),
    "capability_of_baseline": ("", SAFE.replace("drop: [ALL]", "drop: [ALL], add: [CHOWN]")),
}
LET_IN = {
    "baseline": (
        context(
            "sysctls: [{name: net.ipv4.ip_local_port_range, value: 1024 65535}], "
            "seLinuxOptions: {type: container_t, level: s0}, "
            "seccompProfile: {type: Localhost, localhostProfile: p}, appArmorProfile: {type: RuntimeDefault}"
        ),
        context("capabilities: {add: [CHOWN, NET_BIND_SERVICE]}, procMount: Default, runAsUser: 0")
        + ", ports: [{containerPort: 1, hostPort: 0}], livenessProbe: {httpGet: {port: 1}}",
    ),
    "restricted": ("", SAFE.replace("drop: [ALL]", "drop: [ALL], add: [NET_BIND_SERVICE]")),
}


@pytest.mark.parametrize("level", ["baseline", "restricted"])
@pytest.mark.parametrize("row", BASELINE)
def test_refuses_a_row_of_baseline(row: str, level: str) -> None:
    wrong = told(namespace(level) + pod(*BASELINE[row]))
    assert any(one.startswith("pod-security: ") and f"enforces Pod Security {level}" in one for one in wrong), wrong
    if level == "baseline":
        assert len([one for one in wrong if one.startswith("pod-security")]) == 1, wrong


@pytest.mark.parametrize("row", BASELINE)
def test_lets_it_in_where_nothing_is_enforced(row: str) -> None:
    for level in ("privileged", ""):
        text = (namespace(level) if level else "") + pod(*BASELINE[row])
        assert [one for one in told(text) if one.startswith("pod-security")] == []


@pytest.mark.parametrize("row", RESTRICTED)
def test_refuses_a_row_of_restricted(row: str) -> None:
    assert [one for one in told(namespace("baseline") + pod(*RESTRICTED[row])) if one.startswith("pod-security")] == []
    (wrong,) = [one for one in told(namespace("restricted") + pod(*RESTRICTED[row])) if one.startswith("pod-security")]
    assert "enforces Pod Security restricted" in wrong


@pytest.mark.parametrize("level", LET_IN)
def test_lets_in(level: str) -> None:
    assert told(namespace(level) + pod(*LET_IN[level])) == []


def test_app_armor_by_the_old_annotation_is_judged() -> None:
    note = "container.apparmor.security.beta.kubernetes.io/c: unconfined"
    text = namespace("baseline") + pod().replace("labels: {app: web}}", f"labels: {{app: web}}, annotations: {{{note}}}}}")
    assert any("the AppArmor profile unconfined" in one for one in told(text))
    assert told(text.replace("unconfined", "runtime/default")) == []


def test_windows_pods_need_neither_seccomp_nor_capabilities() -> None:
    text = pod("os: {name: windows}", "securityContext: {runAsNonRoot: true}")
    assert told(namespace("restricted") + text) == []
