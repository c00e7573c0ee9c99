"""deploy/README.md names what is there."""

from __future__ import annotations

import re

from tests.deploy.places import DEPLOY


def test_every_folder_is_listed_and_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", (DEPLOY / "README.md").read_text())
    assert not [link for link in links if not (DEPLOY / link).exists()]
    assert {path.name for path in DEPLOY.iterdir() if path.is_dir()} == {link.split("/")[0] for link in links} - {".."}
