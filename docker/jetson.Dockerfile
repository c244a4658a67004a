# Builds the TensorRT 10 engine of an export on a Jetson with JetPack 6. From the root of the repository, on the Jetson:
#
#     docker build --file docker/jetson.Dockerfile --tag lightning-kd:jetson .
#     docker run --rm --runtime nvidia --volume "$PWD/student.tensorrt:/model" lightning-kd:jetson

# Its TensorRT and Python bindings are JetPack's own; packages from the index do not fit them.
FROM nvcr.io/nvidia/l4t-jetpack:r36.4.0

RUN dpkg-query --show python3-libnvinfer \
    && useradd --uid 10001 --groups video builder
ENV PYTHONUNBUFFERED=1
USER 10001
WORKDIR /model
ENTRYPOINT ["python3"]
CMD ["/model/build.py"]
