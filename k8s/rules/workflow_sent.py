"""Rules about what workflows send past the checks: by flags of kubectl, by HTTP, by plugins, by templates from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from k8s.objects import embedded
from k8s.objects.findings import Finding, rule
from k8s.objects.manifests import Manifest
from k8s.objects.pods import mapping
from k8s.objects.schema import Part, Walk
from k8s.objects.workflows import Flows
from k8s.rules.whole_set import words

# What `resource.flags` may hold: the kind and the name of an object, and flags that name no file, no address and no content.
_WORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9./-]*[A-Za-z0-9])?")
_FLAGS = re.compile(
    r"--(?:server-side|force-conflicts|force|overwrite|wait|ignore-not-found|save-config|record|now)(?:=(?:true|false))?"
    r"|--(?:field-manager|type|validate|cascade|grace-period|timeout|subresource|namespace)=[A-Za-z0-9./-]+|-n"
)
_PLUGIN = "workflows.argoproj.io/configmap-type"
# An address whose host stands there for every reader alike, as a name.
_URL = re.compile(r"https?://(?P<host>[a-z0-9.-]*[a-z][a-z0-9.-]*?)\.?(?::[0-9]+)?(?:[/?#][!-~]*)?", re.IGNORECASE)
_API_SERVER = re.compile(r"kubernetes(?:\.default(?:\.svc(?:\..+)?)?)?", re.IGNORECASE)


@rule("workflow-sent")
def check(walks: Sequence[Walk]) -> Iterator[Finding]:
    """What of these objects lets a workflow send what nobody checked.

    Args:
        walks: of the whole set.
    """
    everything = [*walks, *(inner for walk in walks for inner in walk.inner)]
    for walk in everything:
        yield from _plugin(walk.manifest)
        for part in walk.parts:
            if part.definition == "ResourceTemplate":
                yield from _flags(walk.manifest, part)
                yield from _copied(walk.manifest, part)
            elif part.definition == "HTTP":
                yield from _http(walk.manifest, part)
            elif part.definition == "Template" and part.body.get("plugin") is not None:
                what = "a plugin runs it, and no set holds one: nobody checked what it does"
                yield walk.manifest.finding((*part.path, "plugin"), what, "use a container, or another template of Argo's")
    flows = Flows.of(everything)
    for flow in flows.flows:
        if flow.referenced and flows.base(flow) is None:
            what = (
                f"no {'Cluster' if flow.referenced.get('clusterScope') else ''}WorkflowTemplate {flow.referenced.get('name')}"
            )
            path = (*flow.path, "workflowTemplateRef")
            yield flow.manifest.finding(path, f"{what} in this set: nobody checked it", "add it to the set, or mend the name")


@rule("workflow-sent")
def _flags(manifest: Manifest, part: Part) -> Iterator[Finding]:
    for number, flag in enumerate(words(part.body.get("flags"))):
        if not _WORD.fullmatch(flag) and not _FLAGS.fullmatch(flag):
            what = f"the flag {flag!r} may name a file, an address or content that nobody checked"
            fix = "write what is sent into `manifest`, and here only kind and name, or flags such as --server-side"
            yield manifest.finding((*part.path, "flags", number), what, fix)


@rule("workflow-sent")
def _http(manifest: Manifest, part: Part) -> Iterator[Finding]:
    if "{{" in str(part.body.get("body") or ""):
        fix = "let a step with a program of its own send it"
        yield manifest.finding((*part.path, "body"), "a body that is made when it runs: nobody checked what is sent", fix)
    url = _URL.fullmatch(str(part.body.get("url", "")))
    if url is None:
        what = "the host cannot be told: it may be the Kubernetes API server"
        yield manifest.finding((*part.path, "url"), what, "write https:// and the host as a name, which no parameter makes")
    elif _API_SERVER.fullmatch(url["host"]):
        what = "it speaks to the Kubernetes API server, past every check"
        yield manifest.finding((*part.path, "url"), what, "use a `resource` template")


@rule("workflow-sent")
def _copied(manifest: Manifest, part: Part) -> Iterator[Finding]:
    """Operations of a JSON patch that put there what stands elsewhere in the cluster's object."""
    bodies, _ = embedded.read(str(part.body.get("manifest") or ""))
    for number, one in enumerate(bodies[0] if bodies and isinstance(bodies[0], list) else ()):
        if mapping(one).get("op") in {"copy", "move"}:
            what = f"a patch that does {one['op']}: nobody checked the value"
            yield manifest.finding(
                (*part.path, "manifest", 0, number, "op"), what, "write the value out with `add` or `replace`"
            )


@rule("workflow-sent")
def _plugin(manifest: Manifest) -> Iterator[Finding]:
    if manifest.kind == "ConfigMap" and mapping(manifest.metadata.get("labels")).get(_PLUGIN) == "ExecutorPlugin":
        what = "a plugin of Argo's executor: its container runs beside each step, and no schema says what is in it"
        yield manifest.finding(("metadata", "labels", _PLUGIN), what, "leave it out")
