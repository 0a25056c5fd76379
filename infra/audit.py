"""Known vulnerabilities of the packages in constraints.txt, by pip-audit: `make audit`.

Exit code 1 if there are any, 0 if there are none or if the service of advisories does not respond
(which is said): an audit that cannot be made must not stop work without a network.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Apart from the project's own environment, whose packages it must not change.
ENVIRONMENT = ROOT / ".venv" / "audit"
# Vulnerabilities that do not concern us, with the reason, by id. Reviewed at each release.
ACCEPTED: dict[str, str] = {}


def main() -> int:
    """Runs the audit, prints a line for each finding, and returns the exit code."""
    python = ENVIRONMENT / "bin" / "python"
    if not (ENVIRONMENT / "bin" / "pip-audit").exists():
        venv.create(ENVIRONMENT, with_pip=True)
        made = _run([str(python), "-m", "pip", "install", "--quiet", "pip-audit"])
        if made.returncode:
            return not_audited(made.stderr)
    return report(
        _run(
            [
                *(str(python), "-m", "pip_audit", "--requirement", str(ROOT / "constraints.txt")),
                *("--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"),
            ]
        )
    )


def report(audited: subprocess.CompletedProcess[str]) -> int:
    """Prints what pip-audit found; returns the exit code."""
    try:
        packages = json.loads(audited.stdout)["dependencies"]
    except (ValueError, KeyError):
        return not_audited(audited.stderr)
    skipped = [package for package in packages if "skip_reason" in package]
    if len(skipped) == len(packages):
        return not_audited(str(skipped[0]["skip_reason"]) if skipped else "no packages")
    found = findings(packages)
    for line in found:
        print(line)
    print(
        f"{len(packages) - len(skipped)} packages audited, {len(found)} known vulnerabilities; "
        f"not audited: {', '.join(str(package['name']) for package in skipped) or 'none'}",
        file=sys.stderr,
    )
    return 1 if found else 0


def findings(packages: list[dict[str, object]]) -> list[str]:
    """A line for each vulnerability that is not accepted: package, id, where it is fixed."""
    lines = []
    for package in packages:
        vulnerabilities = package.get("vulns") or []
        assert isinstance(vulnerabilities, list)
        for known in vulnerabilities:
            if not {known["id"], *known.get("aliases", [])} & set(ACCEPTED):
                fixed = ", ".join(known.get("fix_versions") or ()) or "nothing yet"
                lines.append(
                    f"{package['name']} {package['version']}: {known['id']}, fixed in {fixed}"
                )
    return lines


def not_audited(reason: str) -> int:
    """Says that nothing was audited, and why; returns 0."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    print(f"not audited: {lines[-1][:300] if lines else 'no answer'}", file=sys.stderr)
    return 0


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # it takes nothing but --help
    sys.exit(main())
