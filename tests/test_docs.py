"""What the documents say can be done is done here."""

import json
import re
import shlex
import subprocess

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.cli import main
from steelyard.core.config import RunConfig, load_toml
from support.helpers import PROGRAM, ROOT, pairs_table

SQL = (ROOT / "docs/sql.md").read_text("utf-8")
CLI = (ROOT / "docs/cli.md").read_text("utf-8")
PYTHON = (ROOT / "docs/python.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")
QUERIES = re.findall(r"```sql\n(.*?)```", SQL, re.DOTALL)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("docs")
    table = pairs_table(60).append_column("label", pa.array(["A", "B", "tie"] * 20))
    longer = [text * (1 + row % 4) for row, text in enumerate(table["response_b"].to_pylist())]
    table = table.set_column(2, "response_b", pa.array(longer))
    pq.write_table(table, place / "pairs.parquet")
    return steelyard.score(place / "pairs.parquet", run=place / "run", judge="scripted")


def test_there_are_worked_queries():
    assert len(QUERIES) >= 5


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.split("\n")[0][:40])
def test_worked_queries_have_answers(run, query):
    table = run.sql(query)
    assert len(table) > 0
    assert all(column.null_count == 0 for column in table.columns)


@pytest.mark.parametrize("table", ["verdicts", "answers", "reads", "rejects", "work"])
def test_documented_columns_are_the_columns(run, table):
    described = run.sql(f"DESCRIBE {table}")["column_name"].to_pylist()
    section = SQL.split(f"## {table}:")[1].split("\n## ")[0]
    cells = re.findall(r"^\| ([^|]+) \|", section, re.MULTILINE)
    named = [name.strip() for cell in cells for name in cell.split(",")]
    if table == "rejects":
        named = [*re.findall(r"`(\w+)`", section.split("(")[0]), "detail"]
    assert sorted(set(named) - {"column", "---"}) == sorted(described)


def test_every_command_is_documented():
    for name, command in main.commands.items():
        assert f"| `{name}" in CLI, f"docs/cli.md lacks {name}"
        assert command.help
        if not isinstance(command, click.Group):
            for option in command.params:
                assert isinstance(option, click.Argument) or option.help, (name, option.name)


def test_the_configuration_example_is_one(tmp_path):
    example = re.search(r"```toml\n(.*?)```", CLI, re.DOTALL)
    assert example
    path = tmp_path / "c.toml"
    path.write_text(example[1])
    config = RunConfig.from_mapping(load_toml(path), "docs")
    assert config.map == {"instruction": "question"}
    assert config.engine == {"gpu_memory_utilization": 0.85}


def test_links_lead_somewhere():
    for document in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", document.read_text("utf-8")):
            if "://" not in link:
                assert (document.parent / link).exists(), f"{document}: {link}"


def test_the_python_of_the_readme_is_the_api():
    code = "".join(re.findall(r"```python\n(.*?)```", README + PYTHON, re.DOTALL))
    for name in re.findall(r"steelyard\.(\w+)\(", code):
        assert callable(getattr(steelyard, name))
    cells = re.findall(r"^\| (`.*?) \|", PYTHON, re.MULTILINE)
    methods = [*re.findall(r"run\.(\w+)\(", code), *re.findall(r"`(\w+)\(", "".join(cells))]
    assert len(set(methods)) >= 12
    for name in methods:
        assert callable(getattr(steelyard.Run, name))


def test_every_page_is_in_the_index():
    index = (ROOT / "docs/README.md").read_text("utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages <= set(re.findall(r"\]\(([\w-]+\.md)", index))


def test_the_quickstart_leads_to_a_ranked_table(tmp_path):
    text = (ROOT / "docs/quickstart.md").read_text("utf-8")
    commands = "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).splitlines()
    responses = [
        {"instruction": f"question {i}", "model": f"model-{m}", "response": f"{m} says {i}"}
        for i in range(6)
        for m in "xyz"
    ]
    lines = "".join(json.dumps(response) + "\n" for response in responses)
    (tmp_path / "responses.jsonl").write_text(lines)
    outputs = []
    for command in commands:
        name, *arguments = shlex.split(command.replace("--judge demo", "--judge scripted"))
        assert name == "steelyard"
        done = subprocess.run(
            [*PROGRAM, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    ranked = next(
        out for out, command in zip(outputs, commands, strict=True) if " rank " in command
    )
    assert all(f"model-{m}" in ranked for m in "xyz")
