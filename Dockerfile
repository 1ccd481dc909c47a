# TorchServe with the models of this repository; scripts/image builds it, docs/deploy.md tells about it.
#   BASE      a Debian 12 (for its Python 3.11)
#   TORCH     cpu, cuda: which build of torch. CUDA's libraries come with it, so that the base is the same
#   DEMO      yes, no: whether the pages of scripts/demo are in it, 0.6 GB
#   WEIGHTS   starter, pretrained: what is packed and baked in; none: archives are mounted at /app/model_store
#   PIP_INDEX_URL, TORCH_CPU_INDEX   a package index of your own, and one in place of PyTorch's CPU index
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS python
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 tini ca-certificates \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log

# The packages, from nothing but the files that name them: no change of code installs them again.
FROM python AS packages
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /app
ARG PIP_INDEX_URL
ARG TORCH_CPU_INDEX
ENV PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1
ARG TORCH=cpu
COPY requirements requirements
COPY scripts/setup scripts/
# What only installs or compiles goes again: triton and torch's headers are for torch.compile, which wants a C++ compiler.
RUN scripts/setup --torch ${TORCH} \
    && .venv/bin/pip uninstall -q -y triton wheel uv \
    && .venv/bin/pip uninstall -q -y pip \
    && rm -rf .venv/lib/python3.11/site-packages/torch/include

ARG DEMO=yes
RUN mkdir .venv-demo \
    && if [ "${DEMO}" = yes ]; then \
    scripts/setup --demo \
    && .venv-demo/bin/pip uninstall -q -y uv \
    && .venv-demo/bin/pip uninstall -q -y pip; fi

FROM packages AS archives
ARG WEIGHTS=starter
# For what summarizers get compiled at packing; the stage is thrown away.
RUN if [ "${WEIGHTS}" != none ]; then \
    apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*; fi
COPY models models
COPY torchserve_models torchserve_models
COPY scripts/pack scripts/
COPY handlers handlers
ARG HF_ENDPOINT
RUN mkdir -p model_store \
    && if [ "${WEIGHTS}" != none ]; then scripts/pack --weights ${WEIGHTS}; fi \
    && rm -rf model_store/.prepared

FROM python
LABEL org.opencontainers.image.title="torchserve-models" \
      org.opencontainers.image.description="ResNet-50, T5 and BART on TorchServe 0.12" \
      org.opencontainers.image.licenses="Apache-2.0"
WORKDIR /app
# Code, packages and archives belong to root; the server writes to its run folder alone.
RUN useradd --uid 1000 --create-home serve && install -d -o serve -g serve .run
ENV PATH=/app/.venv/bin:${PATH} PYTHONDONTWRITEBYTECODE=1
COPY --from=packages /app/.venv .venv
COPY --from=packages /app/.venv-demo .venv-demo
COPY --from=archives /app/model_store model_store
COPY . .
# A number, by which Kubernetes sees that it is not root (runAsNonRoot).
USER 1000:1000
EXPOSE 8080 8082 8083 7070
# The supervisor's readiness, from its memory: a few milliseconds, and no request to a model.
HEALTHCHECK --interval=15s --timeout=5s --start-period=300s --retries=3 CMD ["scripts/probe", "8083", "/readyz"]
ENTRYPOINT ["tini", "--"]
# A container's loopback cannot be reached from outside: what clients need listens on all addresses, management does not.
CMD ["scripts/serve", "--no-pack", "--host", "0.0.0.0", "--verbose"]
