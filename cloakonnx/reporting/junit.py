"""Gates as JUnit XML, which CI systems show beside other tests: a suite for an evaluation, a case for a gate."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from cloakonnx.evaluation.gates import Decision
from cloakonnx.text import shown_line

_NUMBERS = ("value", "low", "high", "limit", "n", "needed")


def junit_xml(decisions: Sequence[Decision], *, name: str, allow_inconclusive: bool = False) -> str:
    """Return decided gates as the text of a JUnit file.

    A gate that failed is a failure. One that is inconclusive is a failure, too, or skipped where that is allowed.

    Args:
        decisions: What became of the gates.
        name: What was judged: the name of the suite.
        allow_inconclusive: Whether inconclusive gates pass.

    Examples:
        >>> from cloakonnx.evaluation.gates import Decision
        >>> 'failures="1"' in junit_xml([Decision("clean>=90%", "fail", "80.0%")], name="model.onnx")
        True
    """
    suite = ET.Element("testsuite", name=shown_line(name))
    counts = {"tests": len(decisions), "failures": 0, "errors": 0, "skipped": 0}
    for decision in decisions:
        case = ET.SubElement(suite, "testcase", classname="cloakonnx.gate", name=shown_line(decision.gate))
        properties = ET.SubElement(case, "properties")
        numbers = decision.as_dict()
        for key in _NUMBERS:
            if numbers[key] is not None:
                ET.SubElement(properties, "property", name=key, value=str(numbers[key]))
        detail = shown_line(decision.detail)
        if decision.verdict == "fail" or (decision.verdict == "inconclusive" and not allow_inconclusive):
            counts["failures"] += 1
            ET.SubElement(case, "failure", message=detail, type=decision.verdict)
        elif decision.verdict == "inconclusive":
            counts["skipped"] += 1
            ET.SubElement(case, "skipped", message=detail)
        else:
            ET.SubElement(case, "system-out").text = detail
    suite.attrib.update({key: str(count) for key, count in counts.items()})
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
