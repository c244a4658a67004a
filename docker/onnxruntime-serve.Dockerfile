# Serves an ONNX export: NumPy, ONNX Runtime and `exporters`, no PyTorch. From the root of the repository:
#
#     docker build --file docker/onnxruntime-serve.Dockerfile --tag lightning-kd:onnxruntime-serve .
#     docker run --rm --publish 8080:8080 --volume "$PWD/exported:/model:ro" lightning-kd:onnxruntime-serve

# The Python with which the versions in constraints.txt were tested.
FROM python:3.11-slim AS build

RUN pip install --no-cache-dir uv==0.13.8
WORKDIR /source
COPY constraints.txt docker/install.sh ./
RUN UV_OPTIONS=--no-cache sh install.sh /opt/serve numpy onnxruntime

FROM python:3.11-slim

COPY --from=build /opt/serve /opt/serve
COPY docker/serve.py /app/serve.py
COPY exporters /app/exporters
ENV PATH="/opt/serve/bin:$PATH" PYTHONUNBUFFERED=1
RUN useradd --uid 10001 server
USER 10001
EXPOSE 8080
HEALTHCHECK CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health', timeout=2)"]
ENTRYPOINT ["python", "/app/serve.py", "--host", "0.0.0.0"]
CMD ["/model/student.onnx"]
