"""Hatch's build hook: compiled modules into the wheel."""

import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompiledWheel(BuildHookInterface):  # type: ignore[misc]
    """A wheel for this machine's kind and this Python; one for all where SMTP_HORIZON_PURE is set."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":  # runs the tree, in which `make setup` compiles
            return
        sys.path.insert(0, self.root)
        from scripts.native import PURE, ROOT, compile_all, libraries, missing_tool  # noqa: PLC0415

        if os.environ.get(PURE):
            return
        lacking = missing_tool()
        if lacking is not None:
            sys.exit(f"{lacking} is missing: install it, or set {PURE}=1 for a wheel of pure Python")
        compile_all()
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"] |= {str(path): str(Path(path).relative_to(ROOT)) for path in libraries()}
