import re

import pytest

from glm_data import errors
from glm_data.errors import GlmDataError, did_you_mean

CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", CLASSES)
def test_the_drawn_tree_is_the_real_one(kind: type[GlmDataError]) -> None:
    drawn = re.search(rf"^( *[│├└─ ]*){kind.__name__}\s+exit (\d+)?", errors.__doc__ or "", re.MULTILINE)
    if drawn:
        assert kind.exit_code == int(drawn.group(2))
    else:  # drawn without a code of its own: its parent's
        assert re.search(rf"── {kind.__name__}\s+\w", errors.__doc__ or "")
        assert kind.exit_code == kind.__bases__[0].exit_code  # type: ignore[attr-defined]


def test_every_error_has_an_exit_code_and_shows_its_message() -> None:
    assert len(CLASSES) >= 8
    for kind in CLASSES:
        assert issubclass(kind, GlmDataError)
        assert str(kind("what, where, why")) == "what, where, why"
        assert kind.exit_code in (1, 2, 130)


def test_did_you_mean_names_the_nearest_or_nothing() -> None:
    assert did_you_mean("mip_ration", ["seed", "mip_ratio"]) == " Did you mean 'mip_ratio'?"
    assert did_you_mean("colour", ["seed", "mip_ratio"]) == ""
    assert did_you_mean("x", []) == ""
