"""Names in the report page stay text, the page loads nothing, and its policy allows its own script only."""

from __future__ import annotations

import base64
import hashlib
import html
import re
import shlex

from cloakonnx.reporting.page import report_html
from tests.support.pages import HOSTILE, Elements

from . import samples


def test_hostile_names_stay_text(whole: str) -> None:
    found = samples.evaluation(name=HOSTILE, tap=HOSTILE)
    page = report_html(found, analysis=samples.scored(HOSTILE), sweep=samples.sweep())
    parsed, usual = (
        Elements(page),
        Elements(report_html(samples.evaluation(), analysis=samples.scored(), sweep=samples.sweep())),
    )
    assert [tag for tag, _ in parsed.found] == [tag for tag, _ in usual.found]
    assert not any(name.startswith("on") for _, attributes in parsed.found for name in attributes)
    assert HOSTILE in parsed.text
    assert shlex.quote(HOSTILE) in parsed.text


def test_it_loads_nothing(whole: str) -> None:
    elements = Elements(whole).found
    assert not [tag for tag, _ in elements if tag in {"iframe", "object", "embed", "img", "base", "form", "input"}]
    assert [a for tag, a in elements if tag == "link"] == [{"rel": "icon", "href": "data:,"}]
    links = [a["href"] for tag, a in elements if tag == "a"]
    assert all(link and link.startswith("#") for link in links)
    assert {str(link)[1:] for link in links} <= {a.get("id") for _, a in elements}
    assert "url(" not in re.sub(r"url\(#scores-hatch\)", "", whole)
    assert "://" not in whole.replace("http://www.w3.org/2000/svg", "")
    ids = [a["id"] for _, a in elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert not [a for _, a in elements if "style" in a]  # the policy would block them


def test_the_policy_allows_the_page_s_own_script_and_style_only(whole: str) -> None:
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', whole)
    assert found is not None
    policy = dict(part.split(" ", 1) for part in html.unescape(found[1]).split("; "))
    assert policy["default-src"] == "'none'"
    for kind in ("style", "script"):
        bodies = re.findall(rf"<{kind}>(.*?)</{kind}>", whole, re.S)
        assert len(bodies) == 1
        digest = base64.b64encode(hashlib.sha256(bodies[0].encode()).digest()).decode()
        assert policy[f"{kind}-src"] == f"'sha256-{digest}'"
