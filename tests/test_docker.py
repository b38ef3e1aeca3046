"""What hadolint cannot see: the images fit pyproject.toml and .ci/setup."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMAGES = sorted((ROOT / "docker").glob("*.Dockerfile"))
FROM_THE_BASE_IMAGE = {"numba", "numpy", "starlette", "uvicorn"}  # vLLM brings them


def test_cuda_image_installs_the_light_dependencies_the_fast_tokenizer_and_the_report():
    listed = set(re.findall(r'"(\S+?)" \\', (ROOT / "docker/cuda.Dockerfile").read_text()))
    extras = PROJECT["optional-dependencies"]
    wanted = {*PROJECT["dependencies"], *extras["fast"], *extras["report"]}
    base = {need for need in wanted if re.split(r"[^\w-]", need)[0] in FROM_THE_BASE_IMAGE}
    assert len(base) == len(FROM_THE_BASE_IMAGE)
    assert listed == wanted - base


def test_cuda_image_has_a_vllm_that_the_project_supports():
    text = (ROOT / "docker/cuda.Dockerfile").read_text()
    (minor,) = re.findall(r"vllm-openai:v0\.(\d+)\.", text)
    (low, high) = re.findall(r"0\.(\d+)", PROJECT["optional-dependencies"]["gpu"][0])
    assert int(low) <= int(minor) < int(high)


def test_cpu_image_and_setup_install_the_same():
    setup = (ROOT / ".ci/setup").read_text()
    image = (ROOT / "docker/cpu.Dockerfile").read_text()
    (extras,) = re.findall(r"demo\) extras=(\S+) ;;", setup)
    assert f'"/opt/steelyard[{extras}]"' in image
    for text in (setup, image):
        assert re.search(r'steelyard"? doctor --fix', text)


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.name)
def test_images_run_the_command_as_an_ordinary_user(image):
    lines = image.read_text().splitlines()
    assert 'ENTRYPOINT ["steelyard"]' in lines
    assert lines.index("USER 10001") > max(
        number for number, line in enumerate(lines) if line.startswith(("RUN", "COPY"))
    )
    assert 'VOLUME ["/cache", "/runs"]' in lines
