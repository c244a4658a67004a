# Training on a CPU, and export to ONNX Runtime, OpenVINO and Core ML. From the root of the repository:
#
#     docker build --file docker/cpu.Dockerfile --tag lightning-kd:cpu .
#     docker run --rm --volume "$PWD/work:/work" lightning-kd:cpu demo

# The Python with which the versions in constraints.txt were tested.
FROM python:3.11-slim AS build

RUN pip install --no-cache-dir uv==0.13.8
WORKDIR /source
COPY constraints.txt docker/install.sh pyproject.toml README.md LICENSE ./
COPY lightning_kd lightning_kd
COPY exporters exporters
# PyTorch's CPU builds: the default ones bring several GB of CUDA libraries.
RUN UV_OPTIONS='--no-cache --torch-backend cpu' sh install.sh /opt/lightning-kd '.[onnx,openvino,coreml,report]'

FROM python:3.11-slim

COPY --from=build /opt/lightning-kd /opt/lightning-kd
ENV PATH="/opt/lightning-kd/bin:$PATH" PYTHONUNBUFFERED=1
RUN useradd --create-home --uid 10001 distiller \
    && install --directory --owner distiller /work
USER 10001
WORKDIR /work
ENTRYPOINT ["lightning-kd"]
CMD ["--help"]
