# A Celery worker with the method. Which build of torch comes in is for PIP_ARGS to say.
FROM python:3.11.14-slim-bookworm AS build
ARG PIP_ARGS=""
WORKDIR /src
COPY pyproject.toml constraints.txt requirements/worker.txt README.md LICENSE ./
COPY jobstore jobstore
COPY sandbox sandbox
COPY atmc_spec atmc_spec
COPY atmc_reader atmc_reader
COPY atmc_core atmc_core
COPY worker worker
RUN python -m venv /opt/atmc \
    && /opt/atmc/bin/pip install --no-cache-dir $PIP_ARGS --require-hashes --no-deps -r worker.txt \
    && /opt/atmc/bin/pip install --no-cache-dir $PIP_ARGS --no-build-isolation -c constraints.txt '.[worker,otel]'

FROM python:3.11.14-slim-bookworm
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/atmc atmc
COPY --from=build /opt/atmc /opt/atmc
ENV PATH=/opt/atmc/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /var/lib/atmc
USER 10001
STOPSIGNAL SIGTERM
CMD ["celery", "-A", "worker.app", "worker"]
