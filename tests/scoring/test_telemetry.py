# ruff: noqa: N802 - the names are NVML's own
"""What was spent; NVML itself is replaced, for there is no GPU here."""

import json
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from steelyard.core import user_cache
from steelyard.scoring import telemetry
from steelyard.store.rundir import TELEMETRY, RunDir


def write(folder, samples):
    text = "".join(json.dumps(sample) + "\n" for sample in samples)
    (folder / TELEMETRY).write_text(text)


def spent(folder):
    return telemetry.spent(*telemetry.read_samples(RunDir(folder)))


def sample(session, at, cpu, *gpus):
    return {"session": session, "time": at, "cpu_seconds": cpu, "gpus": list(gpus)}


def gpu(watts=None, joules=None):
    return {"gpu": 0, "watts": watts, "joules": joules}


def test_energy_by_the_drivers_counter(tmp_path):
    write(
        tmp_path,
        [sample("a", 0, 1, gpu(300, 1000)), sample("a", 10, 5, gpu(9, 4600)),
         sample("b", 99, 0, gpu(9, 9000)), sample("b", 100, 2, gpu(9, 9400))],
    )  # fmt: skip
    assert spent(tmp_path) == {
        "seconds": 11, "cpu_seconds": 6, "gpu_watt_hours": pytest.approx(4000 / 3600),
        "damaged_samples": 0,
    }  # fmt: skip


def test_energy_from_power_where_there_is_no_counter(tmp_path):
    two = [gpu(100), gpu(300)]
    write(tmp_path, [sample("a", 0, 0, *two), sample("a", 36, 0, gpu(200), gpu(300))])
    assert spent(tmp_path)["gpu_watt_hours"] == pytest.approx(1.5 + 3.0)


def test_no_gpu_is_no_energy_and_a_torn_line_is_none(tmp_path):
    write(tmp_path, [sample("a", 0, 1), sample("a", 5, 2)])
    with (tmp_path / TELEMETRY).open("a") as stream:
        stream.write('{"session": "a", "ti')
    assert spent(tmp_path) == {
        "seconds": 5, "cpu_seconds": 1, "gpu_watt_hours": None, "damaged_samples": 1,
    }  # fmt: skip
    assert spent(tmp_path / "nowhere") == {
        "seconds": 0, "cpu_seconds": 0, "gpu_watt_hours": None, "damaged_samples": 0,
    }  # fmt: skip


class FakeNVML(SimpleNamespace):
    NVMLError = type("NVMLError", (Exception,), {})
    NVML_TEMPERATURE_GPU = 0

    def nvmlInit(self):
        pass

    def nvmlDeviceGetCount(self):
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetPowerUsage(self, handle):
        return 250_000 + handle

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        if handle:
            raise self.NVMLError("not supported")
        return 5_000_000

    def nvmlDeviceGetUtilizationRates(self, handle):
        return SimpleNamespace(gpu=97)

    def nvmlDeviceGetMemoryInfo(self, handle):
        return SimpleNamespace(used=1 << 30)

    def nvmlDeviceGetTemperature(self, handle, sensor):
        return 61


def test_gpus_are_sampled_while_it_is_open(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", FakeNVML())
    with telemetry.Telemetry(RunDir(tmp_path), "s", pytest.fail, seconds=0.01):
        time.sleep(0.1)
    lines = [json.loads(line) for line in (tmp_path / TELEMETRY).read_text().splitlines()]
    assert len(lines) >= 3
    assert lines[0]["gpus"][0] == {
        "gpu": 0, "watts": 250.0, "joules": 5000.0, "percent": 97, "memory_mib": 1024.0,
        "celsius": 61,
    }  # fmt: skip
    assert lines[0]["gpus"][1]["joules"] is None
    assert lines[-1]["cpu_seconds"] >= lines[0]["cpu_seconds"]


def test_a_full_disk_ends_telemetry_with_one_warning_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", FakeNVML())
    warned = []
    with telemetry.Telemetry(RunDir(tmp_path / "gone"), "s", warned.append, seconds=0.01):
        time.sleep(0.05)
    (text,) = warned
    assert text.startswith("energy and CPU time are no longer recorded: cannot write")


def test_a_driver_that_hangs_does_not_hold_the_end_of_a_run(tmp_path, monkeypatch):
    go_on, asked = threading.Event(), threading.Event()

    def power(*_):
        if threading.current_thread().name == "telemetry":
            asked.set()
            go_on.wait()
        return 1000

    monkeypatch.setattr(FakeNVML, "nvmlDeviceGetPowerUsage", power)
    monkeypatch.setitem(sys.modules, "pynvml", FakeNVML())
    monkeypatch.setattr(telemetry, "LAST_SECONDS", 0.01)
    with telemetry.Telemetry(RunDir(tmp_path), "s", pytest.fail, seconds=0.01):
        assert asked.wait(20)
    go_on.set()


def test_the_ratebook_remembers_the_last_rate(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache.last_rate("x") is None
    user_cache.remember_rate("x", 10.0)
    user_cache.remember_rate("x", 12.5)
    assert user_cache.last_rate("x") == 12.5
    (tmp_path / "steelyard" / "rates.json").write_text("{broken")
    assert user_cache.last_rate("x") is None
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    user_cache.remember_rate("x", 1.0)  # a cache that cannot be written is no error
