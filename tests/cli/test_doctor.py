"""`doctor --fix` in an environment with torch for CPUs and a companion for CUDA, by names alone."""

import shutil
import subprocess
import sys
import sysconfig

import pytest

REPAIR = "from steelyard.cli.doctor import repair; repair(print)"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A Python that imports what this one does, and its own folder of packages."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    site = next((folder / "lib").iterdir()) / "site-packages"
    (site / "ours.pth").write_text("\n".join([sysconfig.get_path("purelib"), *sys.path]))
    return folder / "bin" / "python", site


@pytest.fixture
def broken(environment):
    """pip knows two packages, and nothing is in them."""
    python, site = environment
    for info in site.glob("torch*.dist-info"):
        shutil.rmtree(info)
    for name, version in (("torch", "2.13.0+cpu"), ("torchvision", "0.20.0")):
        info = site / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        files = ("METADATA", "RECORD")
        (info / "RECORD").write_text("".join(f"{info.name}/{file},,\n" for file in files))
    return python, site


def python_runs(python, code):
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)


def names(site):
    return {path.name.split("-")[0] for path in site.glob("torch*.dist-info")}


def test_what_breaks_vllm_is_removed(broken):
    python, site = broken
    assert names(site) == {"torch", "torchvision"}
    done = python_runs(python, REPAIR)
    assert done.returncode == 0, done.stderr
    assert "pip uninstall --yes torchvision" in done.stdout
    assert names(site) == {"torch"}
    again = python_runs(python, REPAIR)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


def test_a_companion_that_fits_stays(broken):
    python, site = broken
    old = site / "torchvision-0.20.0.dist-info"
    metadata = (old / "METADATA").read_text().replace("0.20.0", "0.20.0+cpu")
    (old / "METADATA").write_text(metadata)
    old.rename(site / "torchvision-0.20.0+cpu.dist-info")
    done = python_runs(python, REPAIR)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert names(site) == {"torch", "torchvision"}


def test_a_pip_that_fails_is_named_with_its_words(broken):
    python, _ = broken
    broken_pip = "import steelyard.cli.doctor as d; d.REMOVE_TRAPS = ('nonsense',); "
    done = python_runs(python, broken_pip + REPAIR)
    assert "EnvironmentFault" in done.stderr
    assert "pip nonsense` failed: ERROR: unknown command" in done.stderr
