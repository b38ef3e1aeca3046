"""The page of `serve` in a real browser: filters, texts that attack it, a run that goes on."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import time
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from support.browser import contrast, opened
from support.helpers import PROGRAM, pairs_table, rows, write_pairs

ATTACK = "<img src=x onerror='window.attacked = 1'><script>window.attacked = 2</script>"


@contextmanager
def served(run):
    """The address that `steelyard serve` prints, while it runs."""
    with subprocess.Popen([*PROGRAM, "serve", run], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    table = pairs_table(90).to_pydict()
    for name in ("instruction", "response_a", "model_b"):
        table[name] = [text + ATTACK for text in table[name]]
    table["pair_id"] = [f"p{i}{ATTACK if i % 2 else ''}" for i in range(90)]
    table["gold"] = ["A", "B", "tie"] * 30
    pq.write_table(pa.table(table), folder / "pairs.parquet")
    steelyard.score(folder / "pairs.parquet", run=folder / "run", judge="scripted:fail=0.1")
    return folder / "run"


@pytest.fixture(scope="module")
def address(run):
    with served(run) as address:
        yield address


def get(address, path=None, *, token=None, host=None, **values):
    """Status and text of an answer."""
    parts = urlsplit(address)
    query = "&".join([parts.query if token is None else f"token={token}",
                      *(f"{key}={value}" for key, value in values.items())])  # fmt: skip
    target = f"{parts.path if path is None else path}?{query}"
    with closing(http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)) as connection:
        connection.request("GET", target, headers={"Host": host or parts.netloc})
        with connection.getresponse() as answer:
            return answer.status, answer.read().decode()


def pairs(address, **values):
    status, text = get(address, "/api/pairs", **values)
    assert status == 200, text
    return json.loads(text)


def test_only_the_printed_address_opens_it(address):
    assert get(address)[0] == 200
    for path in ("/", "/api/run", "/api/pairs", "/api/pair", "/api/sql"):
        assert get(address, path, token="guess")[0] == 403
        assert get(address, path, token="")[0] == 403
        assert get(address, path, host="evil.example")[0] == 421  # a page that rebinds its name
    assert urlsplit(address).hostname == "127.0.0.1"


@pytest.mark.parametrize(
    ("given", "condition"),
    [
        ({}, "true"),
        ({"low": "0.25", "high": "0.75"}, "raw_preference BETWEEN 0.25 AND 0.75"),
        ({"winner": "a"}, "winner = 'a'"),
        ({"order": "flipped"}, "NOT consistent"),
        ({"order": "consistent", "winner": "b"}, "consistent AND winner = 'b'"),
        ({"status": "error"}, "status = 'error'"),
        ({"model": "m1"}, "model_a = 'm1' OR model_b = 'm1'"),
        ({"pair_id": "p7"}, "pair_id LIKE '%p7%'"),
        ({"flag": "low_label_mass"}, "list_contains(flags, 'low_label_mass')"),
        ({"gold": "against"}, "(gold.a > gold.b AND raw_preference < 0.5)"
         " OR (gold.a < gold.b AND raw_preference > 0.5)"),
    ],
)  # fmt: skip
def test_filters_are_what_sql_says(run, address, given, condition):
    (expected,) = rows(run, f"SELECT count(*) AS n FROM verdicts WHERE {condition}")
    answer = pairs(address, **given)
    assert answer["pairs"] == expected["n"]
    if "status" not in given:
        assert expected["n"] > 0
        judged = rows(run, f"SELECT count(raw_preference) AS n FROM verdicts WHERE {condition}")
        assert sum(entry["pairs"] for entry in answer["histogram"]) == judged[0]["n"]
    assert len(answer["rows"]) == min(expected["n"], 25)


def test_pages_are_the_whole(address):
    seen = [row["pair_id"] for page in range(4) for row in pairs(address, page=page)["rows"]]
    assert len(seen) == len(set(seen)) == 90
    assert pairs(address, page=4)["rows"] == []


@pytest.mark.parametrize(
    "values", [{"low": "2"}, {"low": "nan"}, {"winner": "c"}, {"sort": "x;DROP"}, {"other": "1"},
               {"page": "-1"}, {"model": "m" * 600}],
)  # fmt: skip
def test_wrong_filters_are_refused(address, values):
    status, text = get(address, "/api/pairs", **values)
    assert status == 400
    assert json.loads(text)["error"]


@pytest.mark.parametrize(
    "query",
    ["SELECT%20*%20FROM%20'/etc/passwd'", "COPY%20verdicts%20TO%20'/tmp/x'",
     "CREATE%20TABLE%20x(i%20INT)",
     "SELECT%201;%20SELECT%202", "nonsense"],
)  # fmt: skip
def test_sql_reaches_the_run_alone(address, run, query):
    before = sorted(path.name for path in run.iterdir())
    status, text = get(address, "/api/sql", query=query)
    assert status == 400 or json.loads(text)["rows"] == [{"2": 2}]
    assert "root:" not in text
    assert sorted(path.name for path in run.iterdir()) == before


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_in_a_browser(run, address, dark):
    with opened(address, dark=dark, offline=False) as page:
        page.wait_for_selector("#chart-preferences svg")
        page.wait_for_selector("#rows tbody tr")
        assert page.inner_text("#matches").startswith("90 pairs match")
        page.fill("[name=pair_id]", "p1")
        page.select_option("[name=sort]", "least certain")
        page.wait_for_function("document.getElementById('matches').textContent.startsWith('11 ')")
        shared = page.url  # with the filter

        page.click("#rows tbody tr button")
        page.wait_for_selector("#pair .text")
        assert ATTACK in page.inner_text("#pair-body")
        page.fill("#query", "SELECT pair_id, 1 AS n FROM verdicts ORDER BY pair_id DESC LIMIT 3")
        page.click("#sql button")
        page.wait_for_selector("#answer tbody tr")
        assert len(page.query_selector_all("#answer tbody tr")) == 3

        assert page.evaluate("window.attacked") is None
        assert page.query_selector("#rows img, #pair img, #answer img, #flags img") is None
        assert page.complaints == []
        base = address.split("?")[0]
        assert all(url.startswith(base) for url in page.requested)
        assert contrast(page, "p, h1, h2, th, td, label, button, input, .soft, .text") >= 4.5
    with opened(shared, dark=dark, offline=False) as page:
        page.wait_for_function("document.getElementById('matches').textContent.startsWith('11 ')")
        assert page.input_value("[name=pair_id]") == "p1"


def test_a_run_that_goes_on(tmp_path):
    """The page follows a writer, which this test stops and lets go on."""
    write_pairs(tmp_path / "pairs.parquet", 30_000, width=20)
    (tmp_path / "options.toml").write_text("part_rows = 500\nbucket_bytes = 100000\n")
    writer = subprocess.Popen(
        [*PROGRAM, "score", tmp_path / "pairs.parquet", "--judge", "scripted", "--quiet",
         "--run", tmp_path / "run", "--config", tmp_path / "options.toml"],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        journal = tmp_path / "run" / "journal.jsonl"
        deadline = time.monotonic() + 120
        while not journal.exists() or journal.read_bytes().count(b"\n") < 2:
            assert writer.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        writer.send_signal(signal.SIGSTOP)
        with served(tmp_path / "run") as address, opened(address, offline=False) as page:
            page.wait_for_selector("#rows tbody tr")
            assert page.inner_text("#state").startswith("scoring")
            first = int(page.inner_text("#matches").split()[0].replace(",", ""))
            assert 0 < first < 30_000
            writer.send_signal(signal.SIGCONT)
            page.wait_for_function(
                "document.getElementById('matches').textContent.startsWith('30,000 ')",
                timeout=120_000,
            )
            page.wait_for_function("document.getElementById('state').textContent.startsWith('comp')",
                                   timeout=60_000)  # fmt: skip
            assert page.complaints == []
        assert writer.wait(60) == 0
    finally:
        writer.send_signal(signal.SIGCONT)
        writer.kill()
        writer.wait()
