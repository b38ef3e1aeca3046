# Steelyard on vLLM's own image: engine, CUDA, torch, NumPy and Numba come from there, so nothing
# here may pull in another version of them (--no-deps; a test compares this list to pyproject.toml).
FROM vllm/vllm-openai:v0.33.0

COPY . /opt/steelyard
RUN uv pip install --system --no-cache --no-deps \
        "click>=8.1" \
        "duckdb>=1.5,<3" \
        "fastokens>=0.3.5,<0.4" \
        "fsspec>=2024.6" \
        "jinja2>=3.1" \
        "msgspec>=0.19" \
        "nvidia-ml-py>=12.560" \
        "pyarrow>=21" \
        "scipy>=1.11" \
        "typing-extensions>=4.4" \
        "vl-convert-python>=1.8" \
        "xxhash>=3.4" \
        /opt/steelyard \
    && rm -rf /opt/steelyard \
    && useradd --system --uid 10001 --home-dir /cache steelyard \
    && install -d -m 1777 /cache /runs

# Everything that is cached goes to one volume. USER and HOME make `docker run --user` work with
# ids that the image does not know: torch asks for a user name.
ENV HOME=/cache \
    USER=steelyard \
    XDG_CACHE_HOME=/cache \
    HF_HOME=/cache/huggingface
VOLUME ["/cache", "/runs"]
WORKDIR /runs
USER 10001
ENTRYPOINT ["steelyard"]
CMD ["--help"]
