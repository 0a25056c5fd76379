"""Ray's workers on nodes that we start are forks of one process, which has imported everything."""

from __future__ import annotations

import sys
from pathlib import Path

RAY_START = (sys.executable, "-P", str(Path(__file__).with_name("ray_start.py")), "start")
"""The command that starts such a node. By path: the head runs outside of the project's folder."""
CLIENT = str(Path(__file__).with_name("client.py"))
"""The program that such a node starts its workers with; with `-m MODULE`, for any other process."""
