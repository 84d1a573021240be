"""The agent as a single Python archive; on the device it needs only Python, numpy and the runtime."""

from __future__ import annotations

import io
import zipfile
from functools import lru_cache
from pathlib import Path

__all__ = ["agent_archive"]

_ROOT = Path(__file__).resolve().parents[2]
_OF_OFA = ("errors.py", "lazy.py", "opsets.py", "reasons.py", "registry.py", "telemetry.py")
_NEAR_END = ("answers.py", "asking.py", "catalog.py", "device.py", "measure.py", "probing.py", "running.py", "transports/")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # fixed timestamp, so that equal contents give equal bytes
_MAIN = """
import json
import site
import sys

if sys.prefix == sys.base_prefix:
    # In isolated mode Python ignores packages of "pip install --user"; add them last, so that they shadow nothing.
    site.addsitedir(site.getusersitepackages())
try:
    from devices.agent import main
except ImportError as error:
    reason = " ".join(str(error).split())[:300]
    remedy = "install it there with: " + sys.executable + " -m pip install numpy"
    sentence = "the agent needs numpy on the device, but " + sys.executable + " cannot import it: " + reason + "; " + remedy
    sys.stdout.write(json.dumps({"error": sentence}) + "\\n")
    sys.exit(1)
main()
"""
_PACKAGE = '"""The part of ofa that devices need."""\n'


@lru_cache(maxsize=1)
def agent_archive() -> bytes:
    """The archive, which Python runs directly (``python agent.pyz``). Equal sources give equal bytes."""
    files = {path.relative_to(_ROOT).as_posix(): path.read_bytes() for path in sorted((_ROOT / "devices").rglob("*.py"))}
    files = {name: source for name, source in files.items() if not name.removeprefix("devices/").startswith(_NEAR_END)}
    files |= {f"ofa/{name}": (_ROOT / "ofa" / name).read_bytes() for name in _OF_OFA}
    files |= {"ofa/__init__.py": _PACKAGE.encode(), "__main__.py": _MAIN.encode()}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, source in files.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), source, zipfile.ZIP_DEFLATED)
    return content.getvalue()
