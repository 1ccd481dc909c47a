# TorchServe with this repository's models. Build it with scripts/image; see docs/deploy.md.
#   BASE      a Debian 12 image (for its Python 3.11)
#   TORCH     cpu or cuda: the build of torch. It includes the CUDA libraries, so the base image is the same
#   DEMO      yes or no: include the browser pages of scripts/demo (0.6 GB)
#   WEIGHTS   starter or pretrained: pack these into the image; none: mount archives at /app/model_store
#   PIP_INDEX_URL, TORCH_CPU_INDEX   your own package index, and a mirror of PyTorch's CPU index
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS python
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 tini ca-certificates \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log

# The packages depend only on the files that list them, so code changes do not install them again.
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
# Remove what is only needed to install or compile: triton and torch's headers are for torch.compile, which needs a C++ compiler.
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
# g++ compiles the summarizers' attention at packing. This stage is discarded.
RUN if [ "${WEIGHTS}" != none ]; then \
    apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*; fi
COPY models models
COPY torchserve_models torchserve_models
COPY scripts/pack scripts/run scripts/
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
# Code, packages and archives belong to root. The server can only write to its run folder.
RUN useradd --uid 1000 --create-home serve && install -d -o serve -g serve .run
ENV PATH=/app/.venv/bin:${PATH} PYTHONDONTWRITEBYTECODE=1
COPY --from=packages /app/.venv .venv
COPY --from=packages /app/.venv-demo .venv-demo
COPY --from=archives /app/model_store model_store
COPY . .
# A numeric user, so that Kubernetes can verify runAsNonRoot.
USER 1000:1000
EXPOSE 8080 8082 8083 7070
# The supervisor answers from memory within milliseconds and sends no request to a model.
HEALTHCHECK --interval=15s --timeout=5s --start-period=300s --retries=3 CMD ["scripts/probe", "8083", "/readyz"]
ENTRYPOINT ["tini", "--"]
# A container's loopback cannot be reached from outside, so client ports listen on all addresses. Management does not.
# The guardian starts a killed supervisor again.
CMD ["python", "-m", "torchserve_models.guardian", "scripts/serve", "--no-pack", "--host", "0.0.0.0", "--verbose"]
