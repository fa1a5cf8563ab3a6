import subprocess
from pathlib import Path

import pytest

from tests.deployment.serving import StandIn, served


@pytest.mark.slow
def test_a_browser_builds_a_form_for_every_path_and_the_upload_takes_images(chromium: str, tmp_path: Path) -> None:
    """The page's own script runs under its content policy; what it cannot load would leave the page empty."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    with served(StandIn()) as port:
        command = [chromium, *options, "--virtual-time-budget=5000", f"http://127.0.0.1:{port}/docs"]
        page = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    paths = ("/predict", "/predict/batch", "/invocations", "/version", "/health", "/ping", "/metrics")
    assert page.count("<details") == len(paths)
    assert all(f"</b> {path}</summary>" in page for path in paths)
    assert 'type="file" name="file" accept="image/*"' in page or 'accept="image/*" name="file"' in page
    assert page.count('type="file"') == 2
    assert page.count(' multiple=""') == 1
