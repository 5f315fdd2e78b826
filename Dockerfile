# deshi serve without PyTorch: docker build -t deshi . && docker run -v ./serving:/bundle:ro -p 127.0.0.1:8000:8000 deshi
FROM python:3.12-slim

# One thread for each answer: more of them only wait for each other on so small a network.
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
WORKDIR /opt/deshi
COPY constraints.txt ./
# What deshi serve imports; tests/serving/http/test_deploy.py keeps the list complete.
RUN pip install -c constraints.txt \
    faiss-cpu fastapi httptools hydra-core jinja2 numpy omegaconf onnxruntime polars prometheus-client pydantic pyyaml \
    rich safetensors uvicorn uvloop
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-deps . && useradd --uid 10001 --no-create-home deshi
USER deshi
WORKDIR /
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/ready', timeout=2)"]
ENTRYPOINT ["deshi", "serve", "host=0.0.0.0"]
CMD ["bundle=/bundle"]
