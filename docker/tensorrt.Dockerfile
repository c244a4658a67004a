# Builds the TensorRT 11 engine of an export on a PC's GPU, and runs it. From the root of the repository:
#
#     docker build --file docker/tensorrt.Dockerfile --tag lightning-kd:tensorrt .
#     docker run --rm --gpus all --volume "$PWD/student.tensorrt:/model" lightning-kd:tensorrt

FROM nvidia/cuda:13.0.1-runtime-ubuntu24.04 AS build

# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends python3 python3-pip python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && pip install --no-cache-dir --break-system-packages uv==0.13.8
WORKDIR /source
COPY constraints.txt docker/install.sh ./
RUN UV_OPTIONS=--no-cache sh install.sh /opt/tensorrt tensorrt-cu13==11.4.0.106 numpy cuda-bindings

FROM nvidia/cuda:13.0.1-runtime-ubuntu24.04

# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 builder
COPY --from=build /opt/tensorrt /opt/tensorrt
COPY exporters /app/exporters
ENV PATH="/opt/tensorrt/bin:$PATH" PYTHONPATH=/app PYTHONUNBUFFERED=1
USER 10001
WORKDIR /model
ENTRYPOINT ["python"]
CMD ["/model/build.py"]
