"""The page: one HTML file that holds style, code and data, and asks for nothing from anywhere."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "page"
SCRIPTS = (
    "dom.js",
    "model.js",
    "diff.js",
    "overview.js",
    "ir_view.js",
    "graph.js",
    "canvas.js",
    "timeline.js",
    "memory.js",
    "roofline.js",
    "tables.js",
    "main.js",
)


def document(data: Mapping[str, Any]) -> str:
    """The report's HTML.

    The data is JSON, compressed and in base64: browsers decompress it by themselves.
    """
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    packed = base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()
    name = escape(str(data["about"]["name"]))
    template = (FOLDER / "page.html").read_text(encoding="utf-8")
    code = "\n".join((FOLDER / script).read_text(encoding="utf-8") for script in SCRIPTS)
    parts = {
        "TITLE": name,
        "STYLE": (FOLDER / "style.css").read_text(encoding="utf-8"),
        "SCRIPT": f'"use strict";\n{code}',
        "DATA": packed,
    }
    for part, content in parts.items():
        template = template.replace(f"@{part}@", content)
    return template
