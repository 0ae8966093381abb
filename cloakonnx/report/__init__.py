"""Views of results for people: tables for a terminal, Markdown for a pull request, a page to look at.

What the other packages may use is named here.
"""

from cloakonnx.report.accuracy_part import eps_exact
from cloakonnx.report.evaluation import evaluation_markdown, print_evaluation
from cloakonnx.report.page import check_report, report_html
from cloakonnx.report.summary import summary_markdown
from cloakonnx.report.sweep import print_sweep

__all__ = [
    "check_report",
    "eps_exact",
    "evaluation_markdown",
    "print_evaluation",
    "print_sweep",
    "report_html",
    "summary_markdown",
]
