"""Views of results for people: tables for a terminal, Markdown for a pull request.

What the other packages may use is named here.
"""

from cloakonnx.report.evaluation import evaluation_markdown, print_evaluation
from cloakonnx.report.sweep import print_sweep

__all__ = ["evaluation_markdown", "print_evaluation", "print_sweep"]
