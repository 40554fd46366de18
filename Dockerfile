# A tag moves. To build what was tried before, pin it by its digest:
#   docker build --build-arg BASE=python:3.11-slim-bookworm@sha256:DIGEST .
# where DIGEST is what `docker buildx imagetools inspect python:3.11-slim-bookworm` prints.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS builder
WORKDIR /build
COPY requirements/runtime.txt requirements/build.txt requirements/
# Without pip of their own: the builder's pip fills both, so that the service's folder holds no installer.
RUN python3 -m venv --without-pip /opt/ignition-broker \
    && python3 -m venv --without-pip /opt/build \
    && python3 -m pip --python /opt/ignition-broker/bin/python install --no-cache-dir --no-compile \
       --require-hashes -r requirements/runtime.txt \
    && python3 -m pip --python /opt/build/bin/python install --no-cache-dir \
       --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY src src
# Unchecked bytecode holds whatever happens to the files' times, and nothing can write it later.
RUN /opt/build/bin/python -m hatchling build --target wheel \
    && python3 -m pip --python /opt/ignition-broker/bin/python install --no-cache-dir --no-compile \
       --no-deps --no-index dist/*.whl \
    && /opt/ignition-broker/bin/python -m compileall -q --invalidation-mode unchecked-hash \
       /opt/ignition-broker/lib

FROM ${BASE}
LABEL org.opencontainers.image.title="ignition-broker" \
      org.opencontainers.image.description="Keeps OAuth 2.0 grants for Ignition alive and hands out tokens that work." \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/ignition-broker/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    BROKER_HOST=0.0.0.0 \
    BROKER_LOG_FORMAT=json
# The base's own installers go too: nothing here adds a package to a running container.
RUN python3 -m pip uninstall --quiet --yes pip setuptools wheel \
    && rm -r "$(python3 -c 'import ensurepip; print(*ensurepip.__path__)')" \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent \
       --shell /usr/sbin/nologin broker
COPY --from=builder /opt/ignition-broker /opt/ignition-broker
WORKDIR /opt/ignition-broker
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
EXPOSE 3000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('BROKER_PORT', '3000')), timeout=2); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["ignition-broker"]
CMD ["serve"]
