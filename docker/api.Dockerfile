# The API, and what needs no torch beside it: migrations and the keeper.
FROM python:3.11.14-slim-bookworm AS build
ARG PIP_ARGS=""
WORKDIR /src
COPY pyproject.toml constraints.txt requirements/api.txt README.md LICENSE ./
COPY jobstore jobstore
COPY sandbox sandbox
COPY atmc_spec atmc_spec
COPY tuning tuning
COPY api api
COPY keeper keeper
COPY launcher launcher
RUN python -m venv /opt/atmc \
    && /opt/atmc/bin/pip install --no-cache-dir $PIP_ARGS --require-hashes --no-deps -r api.txt \
    && /opt/atmc/bin/pip install --no-cache-dir --no-index --no-build-isolation '.[api,keeper,otel]'

FROM python:3.11.14-slim-bookworm
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/atmc atmc
COPY --from=build /opt/atmc /opt/atmc
ENV PATH=/opt/atmc/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /var/lib/atmc
USER 10001
EXPOSE 8000
STOPSIGNAL SIGTERM
CMD ["python", "-m", "api"]
