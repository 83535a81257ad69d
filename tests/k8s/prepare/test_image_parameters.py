"""An image that is a parameter is pinned wherever the parameter gets a value, through as many templates as it takes."""

from __future__ import annotations

import pytest

from k8s.objects.findings import shown
from tests.k8s.conftest import API, NEW, OLD, Checkout
from tests.k8s.rules.flows import AROUND, FLOW, RUN, TRAIN, checked, findings


def pins(checkout: Checkout, *texts: str) -> dict[str, str]:
    """What is pinned, by place; the whole is clean."""
    rendered, found = checked(checkout, *texts)
    assert [one.text() for one in found] == []
    return {f"{one.title} {shown(one.path)}": one.pinned.digest for one in rendered.pins}


def test_values_are_pinned_where_they_are_given(checkout: Checkout) -> None:
    found = pins(checkout, AROUND, FLOW, RUN)
    at = "WorkflowTemplate flows/flow spec."
    assert found[f"{at}arguments.parameters[1].value"] == NEW
    assert found[f"{at}templates[3].dag.tasks[0].arguments.parameters[0].value"] == NEW
    assert found[f"{at}templates[3].dag.tasks[1].arguments.parameters[0].value"] == OLD
    assert f"{at}templates[4].container.image" not in found


def test_a_run_that_names_another_image_is_pinned_too(checkout: Checkout) -> None:
    run = RUN.replace("value: run-1}", f"value: run-1}}\n      - {{name: tool, value: {API}}}")
    assert pins(checkout, AROUND, FLOW, run)["Workflow flows/run-1 spec.arguments.parameters[1].value"] == OLD


def test_a_parameter_is_followed_through_templates(checkout: Checkout) -> None:
    old = f"parameters: [{{name: image, value: {TRAIN}}}]"
    text = FLOW.replace(old, 'parameters: [{name: image, value: "{{inputs.parameters.through}}"}]')
    text = text.replace(
        "    - name: graph\n      dag:", "    - name: graph\n      inputs: {parameters: [{name: through}]}\n      dag:"
    )
    given = 'arguments: {parameters: [{name: through, value: "{{workflow.parameters.tool}}"}]}'
    text = text.replace("            template: graph\n", f"            template: graph\n            {given}\n")
    found = pins(checkout, AROUND, text, RUN)
    assert found["WorkflowTemplate flows/flow spec.arguments.parameters[1].value"] == NEW
    assert not any("tasks[0]" in place for place in found)


def test_callers_in_other_templates_count(checkout: Checkout) -> None:
    head = FLOW.partition("  templates:\n")[0].replace("name: flow,", "name: other,").replace("  onExit: tidy\n", "")
    head = head.replace(f"      - name: tool\n        value: {TRAIN}\n", "")
    call = "{name: a, templateRef: {name: flow, template: step}, arguments: {parameters: [{name: image, value: %s}]}}"
    other = f"{head}  templates:\n    - name: main\n      steps:\n        - - {call}\n"
    found = pins(checkout, AROUND, FLOW, other % API)
    assert found["WorkflowTemplate flows/other spec.templates[0].steps[0][0].arguments.parameters[0].value"] == OLD
    (refused,) = findings(checkout, AROUND, FLOW, other % "nginx:1")
    assert (
        "WorkflowTemplate flows/other: spec.templates[0].steps[0][0].arguments.parameters[0].value: nginx:1 is not" in refused
    )


def test_a_template_used_elsewhere_sees_the_arguments_of_who_uses_it(checkout: Checkout) -> None:
    head = FLOW.partition("  templates:\n")[0].replace("name: flow,", "name: other,").replace("  onExit: tidy\n", "")
    call = "{name: a, templateRef: {name: flow, template: use}, arguments: {parameters: [{name: made, value: x}]}}"
    other = f"{head}  templates:\n    - name: main\n      steps:\n        - - {call}\n"
    assert pins(checkout, AROUND, FLOW, other)["WorkflowTemplate flows/other spec.arguments.parameters[1].value"] == NEW


def test_an_image_in_an_embedded_manifest_may_be_a_parameter(checkout: Checkout) -> None:
    text = FLOW.replace(f"image: {API}\n", 'image: "{{workflow.parameters.tool}}"\n')
    rendered, found = checked(checkout, AROUND, text)
    assert found == ()
    assert "{{workflow.parameters.tool}}" in rendered.text()


def test_templates_that_call_themselves_are_followed_to_an_end(checkout: Checkout) -> None:
    loop = """\
    - name: again
      inputs: {parameters: [{name: image}]}
      steps:
        - - {name: run, template: step, arguments: {parameters: [{name: image, value: "{{inputs.parameters.image}}"}]}}
        - - name: again
            template: again
            when: "false"
            arguments: {parameters: [{name: image, value: "{{inputs.parameters.image}}"}]}
    - name: begin
      steps:
        - - {name: again, template: again, arguments: {parameters: [{name: image, value: IMAGE}]}}
"""
    found = pins(checkout, AROUND, FLOW + loop.replace("IMAGE", API))
    assert found["WorkflowTemplate flows/flow spec.templates[8].steps[0][0].arguments.parameters[0].value"] == OLD
    refused = findings(checkout, AROUND, FLOW + loop.replace("IMAGE", "nginx"))
    assert ["no digest is known for nginx" in one for one in refused] == [True]


@pytest.mark.parametrize("value", ["5", "[a]", "{a: b}"])
def test_a_value_that_is_no_text_is_refused(checkout: Checkout, value: str) -> None:
    found = findings(checkout, AROUND, FLOW.replace(f"        value: {TRAIN}\n", f"        value: {value}\n"))
    assert any("an image comes from here, and it is no text" in one for one in found)


def test_an_image_in_an_argument_may_be_a_parameter(checkout: Checkout) -> None:
    text = FLOW.replace('"{{inputs.parameters.word}}", ', '"--sidecar-image={{inputs.parameters.image}}", ')
    assert text != FLOW
    found = pins(checkout, AROUND, text, RUN)
    at = "WorkflowTemplate flows/flow spec."
    assert found[f"{at}templates[3].dag.tasks[0].arguments.parameters[0].value"] == NEW
    late = text.replace(
        '"--sidecar-image={{inputs.parameters.image}}"', '"--sidecar-image=quay.io/x/{{inputs.parameters.word}}"'
    )
    assert any("only a whole parameter can" in one for one in findings(checkout, AROUND, late, RUN))
