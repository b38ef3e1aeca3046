"""The notebook of the documents runs in a kernel, also in one without ipywidgets."""

from __future__ import annotations

import os

import nbformat
import pytest
from nbclient import NotebookClient

from support.helpers import ROOT

# What Python imports at its start.
BLOCK = "import sys\nsys.modules['ipywidgets'] = None\n"
PROBE = """
try:
    import ipywidgets
    print("there")
except ImportError:
    print("missing")
"""


def texts(cell):
    return "".join(out["text"] for out in cell["outputs"] if out["output_type"] == "stream")


@pytest.mark.parametrize("widgets", ["there", "missing"])
def test_the_notebook_runs_to_its_report(tmp_path, monkeypatch, widgets):
    start = tmp_path / "start"
    start.mkdir()
    if widgets == "missing":
        (start / "sitecustomize.py").write_text(BLOCK)
    paths = [str(start), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    notebook = nbformat.read(ROOT / "docs/notebook.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    notebook.cells.append(nbformat.v4.new_code_cell(PROBE))
    client = NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}, timeout=120)
    client.execute()
    *cells, probe = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert texts(probe).strip() == widgets
    pages = [
        output["data"]["text/html"]
        for cell in cells
        for output in cell["outputs"]
        if "text/html" in output.get("data", {})
    ]
    assert len(pages) == 8  # the run, a frame, and what six methods return
    assert "<td>terse</td>" in pages[2]
    assert "planned 60 pairs" in texts(cells[1])
    assert "\rplanning: 60/60 rows, 100.0%" in texts(cells[1])
    assert "agreement" in cells[7].outputs[0]["data"]["text/plain"]
    assert (tmp_path / "report.html").read_text("utf-8").startswith("<!doctype html>")
