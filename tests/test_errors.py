"""Errors travel from process to process."""

from __future__ import annotations

import inspect
import pickle

import pytest

from cloakonnx import errors
from cloakonnx.errors import CloakError

FAMILY = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, CloakError)]


@pytest.mark.parametrize("kind", FAMILY, ids=lambda kind: kind.__name__)
def test_an_error_comes_out_of_a_pickle_as_it_was(kind: type[CloakError]) -> None:
    made = kind("{eps} and {Recipe.bounds} do not fit", parameter=("eps", "Recipe.bounds"))
    made.add_note("a note")
    found = pickle.loads(pickle.dumps(made))
    assert type(found) is kind
    assert (str(found), found.parameters, found.args) == (str(made), made.parameters, made.args)
    assert found.said(str.upper) == "EPS and RECIPE.BOUNDS do not fit"
    assert found.__notes__ == ["a note"]
    assert (found.kind, found.exit_code) == (made.kind, made.exit_code)


def test_the_family_is_not_empty() -> None:
    assert len(FAMILY) > 15
