"""Prints pip constraints: every version that setup.py asks for at least, as the only one."""

import ast
import re
from pathlib import Path

AT_LEAST = re.compile(r"([A-Za-z][\w.-]*)(?:\[[\w,]+\])?>=([\w.]+)")

texts = (
    node.value
    for node in ast.walk(ast.parse(Path("setup.py").read_text(encoding="utf-8")))
    if isinstance(node, ast.Constant) and isinstance(node.value, str)
)
print("\n".join(sorted({f"{m[1]}=={m[2]}" for text in texts if (m := AT_LEAST.fullmatch(text))})))
