# TorchServe with the models of this repository, on Debian 12 for its Python 3.11:
#   docker build -t torchserve-models .                             # starter weights baked in, works without a network
#   docker build --build-arg WEIGHTS=pretrained -t torchserve-models .
#   docker build --build-arg PIP_EXTRA_INDEX_URL=<PyTorch's CPU index> ...   # the small CPU build of torch
#   docker run --rm -p 127.0.0.1:8080:8080 -p 127.0.0.1:7070:7070 torchserve-models
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS python
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 tini ca-certificates \
    && rm -rf /var/lib/apt/lists/*

FROM python AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /app
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1
# First what changes seldom: the packages are a layer of their own.
COPY requirements.txt ./
COPY scripts/setup scripts/
COPY client client
RUN scripts/setup
COPY . .
ARG WEIGHTS=starter
RUN scripts/setup --quiet && scripts/pack --weights ${WEIGHTS} && rm -rf model_store/.prepared

FROM python
RUN useradd --uid 1000 --create-home serve
COPY --from=build --chown=serve:serve /app /app
WORKDIR /app
USER serve
EXPOSE 8080 8082 7070
# True readiness: every worker READY and a real request answered.
HEALTHCHECK --interval=15s --timeout=30s --start-period=120s --retries=3 CMD ["scripts/status"]
ENTRYPOINT ["tini", "--"]
# A container's loopback cannot be reached from outside: what clients need listens on all addresses, management does not.
CMD ["scripts/serve", "--no-pack", "--host", "0.0.0.0"]
