# The image that cluster profiles name: raycl, the versions that are tested together, nothing else.
#   docker build --tag registry.example.com/raycl:latest .
#   docker build --build-arg BASE=nvidia/cuda:… --tag … .      a base with the drivers' libraries
# PyTorch's own wheels bring CUDA, so a host with the NVIDIA container runtime needs no more.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

# wget: KubeRay's probes; openssh and rsync: Ray's cluster launcher.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends wget openssh-client rsync \
 && rm -rf /var/lib/apt/lists/*

# Work runs as a user of its own, not as root.
RUN useradd --create-home --home-dir /opt/ray --uid 1000 ray
WORKDIR /opt/raycl

COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY raycl ./raycl
COPY search_spaces ./search_spaces
COPY clusters ./clusters
RUN pip install --no-cache-dir --constraint constraints.txt .

USER ray
WORKDIR /opt/ray
ENV RAY_USAGE_STATS_ENABLED=0
CMD ["raycl", "--help"]
