from pathlib import Path
from typing import Any

import pytest
import yaml

from exectrail import __version__

ROOT = Path(__file__).parents[2]
ROLES = sorted((ROOT / "roles").iterdir())


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_defaults_are_the_documented_options(role: Path) -> None:
    defaults = _read(role / "defaults/main.yml")
    options = _read(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]

    assert defaults == {
        name: option["default"] for name, option in options.items() if "default" in option
    }


def test_supported_ansible_is_the_pinned_range() -> None:
    supported = _read(ROOT / "meta/runtime.yml")["requires_ansible"]

    assert supported == ">=2.18.0,<2.22.0"
    assert '"ansible-core>=2.18,<2.22"' in (ROOT / "pyproject.toml").read_text()


def test_one_version_everywhere() -> None:
    assert _read(ROOT / "galaxy.yml")["version"] == __version__
    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text()
