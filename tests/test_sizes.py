"""Every file of code can be read in one sitting."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAX_LINES = 250
FOLDERS = ("kd_env", "agents", "baselines", "speed", "tests", "docs")


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_file_is_longer_than_250_lines(folder):
    sizes = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert sizes
    assert not {str(path): size for path, size in sizes.items() if size > MAX_LINES}
