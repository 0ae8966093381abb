"""Gates as JUnit XML, which CI systems show beside other tests: a suite for a model, a case for a gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from cloakonnx.evaluation.gates import Decision
from cloakonnx.text import shown_line

_NUMBERS = ("value", "low", "high", "limit", "n", "needed")


@dataclass(frozen=True)
class Suite:
    """What became of the gates of one model.

    Attributes:
        name: What was judged.
        decisions: What became of its gates.
        allow_inconclusive: Whether inconclusive gates pass.
        error: Why it was not judged; empty where it was.

    Example:
        >>> Suite("model.onnx", ()).name
        'model.onnx'
    """

    name: str
    decisions: Sequence[Decision]
    allow_inconclusive: bool = False
    error: str = ""

    @property
    def passed(self) -> bool:
        """Whether every gate passed, or is inconclusive and that is allowed."""
        allowed = {"pass", "inconclusive"} if self.allow_inconclusive else {"pass"}
        return not self.error and all(each.verdict in allowed for each in self.decisions)


def junit_xml(*suites: Suite) -> str:
    """Return decided gates as the text of a JUnit file.

    A gate that failed is a failure. One that is inconclusive is a failure, too, or skipped where that is allowed. A
    model that could not be judged is one case with an error.

    Args:
        suites: What became of each model's gates.

    Examples:
        >>> from cloakonnx.evaluation.gates import Decision
        >>> decision = Decision("clean>=90%", "fail", "80.0%")
        >>> 'failures="1"' in junit_xml(Suite("model.onnx", [decision]))
        True
    """
    root = ET.Element("testsuites", name="cloakonnx")
    root.extend(map(_suite, suites))
    for key in ("tests", "failures", "errors", "skipped"):
        root.set(key, str(sum(int(each.get(key, "0")) for each in root)))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(suite: Suite) -> ET.Element:
    """Return the element of a suite, with the number of cases of each kind."""
    name = shown_line(suite.name)
    found = ET.Element("testsuite", name=name)
    found.extend(_case(each, name, allow_inconclusive=suite.allow_inconclusive) for each in suite.decisions)
    if suite.error:
        case = ET.SubElement(found, "testcase", classname=name, name="evaluation")
        ET.SubElement(case, "error", message=shown_line(suite.error), type="error")
    kinds = [child.tag for case in found for child in case]
    counts = {"tests": len(found), "failures": kinds.count("failure")}
    counts |= {"errors": kinds.count("error"), "skipped": kinds.count("skipped")}
    found.attrib.update({key: str(count) for key, count in counts.items()})
    return found


def _case(decision: Decision, classname: str, *, allow_inconclusive: bool) -> ET.Element:
    """Return the element of a gate, with its numbers as properties."""
    case = ET.Element("testcase", classname=classname, name=shown_line(decision.gate))
    properties = ET.SubElement(case, "properties")
    numbers = decision.as_dict()
    for key in _NUMBERS:
        if numbers[key] is not None:
            ET.SubElement(properties, "property", name=key, value=str(numbers[key]))
    detail = shown_line(decision.detail)
    if decision.verdict == "pass":
        ET.SubElement(case, "system-out").text = detail
    elif decision.verdict == "inconclusive" and allow_inconclusive:
        ET.SubElement(case, "skipped", message=detail)
    else:
        ET.SubElement(case, "failure", message=detail, type=decision.verdict).text = detail
    return case
