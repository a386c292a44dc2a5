"""Runs the Python blocks of the documentation as they are printed.

Blocks with a comment `file:` are programs that the tests of the shell blocks run. Those with `not run:` aren't run.
Every other block is run by itself, after the Python lines of a comment `first:`, with a registry of the services that
the pages name. The ports 8500 and 8080 are replaced by ports of the test.
"""

from __future__ import annotations

import http.server
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import Registry, free_port

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "python/README.md", *sorted((ROOT / "docs").glob("*.md"))]

FENCED = re.compile(r"((?:^<!-- [^>]*? -->\n)*)^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass
class Block:
    place: str
    first: str
    code: str


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text()
        for found in FENCED.finditer(text):
            comments, code = found.groups()
            if "<!-- file: " in comments or "<!-- not run: " in comments:
                continue
            line = text[: found.start(2)].count("\n")
            first = re.search(r"<!-- first: (.*?) -->", comments, re.DOTALL)
            place = f"{page.relative_to(ROOT)}:{line}"
            yield Block(place, first.group(1) if first else "", code)


class Service(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"[]"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def services(embedded: Registry) -> Iterator[Registry]:
    """A registry with the services that the pages call."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    for name in ("auth", "ai-models", "billing"):
        embedded.register(name, server.server_address[1])
    yield embedded
    server.shutdown()
    server.server_close()


#: Runs a file in which `await` is allowed at the top level, as in a notebook.
RUN = """
import ast, asyncio, sys
code = compile(open(sys.argv[1]).read(), sys.argv[1], "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
result = eval(code, {"__name__": "example"})
if result is not None:
    asyncio.run(result)
"""


@pytest.mark.parametrize("block", list(blocks()), ids=lambda block: block.place)
def test_a_python_block_runs_as_printed(block: Block, services: Registry, tmp_path: Path) -> None:
    code = f"{block.first}\n{block.code}".replace("8500", str(services.port))
    file = tmp_path / "block.py"
    file.write_text(code.replace("8080", str(free_port())))
    command = [sys.executable, "-c", RUN, str(file)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert run.returncode == 0, f"{block.place}\n{run.stdout}{run.stderr}"


def test_blocks_are_found() -> None:
    assert len(list(blocks())) >= 7
