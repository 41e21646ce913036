# The bot as a container: one process, no root, nothing written but /data and /tmp.
#
#   docker build --tag shipshape .
#   docker run --read-only --tmpfs /tmp --volume shipshape:/data --env-file shipshape.env --publish 3978:3978 shipshape
FROM python:3.13-slim

WORKDIR /app
COPY requirements-serve.lock .
RUN python -m pip install --no-cache-dir --require-hashes --requirement requirements-serve.lock \
 && install --directory --owner=10001 --group=10001 /data
COPY bot bot
COPY pipelines/catalog.yml pipelines/catalog.yml
RUN python -m compileall -q bot

ENV PYTHONUNBUFFERED=1 HOME=/tmp \
    SHIPSHAPE_HOST=0.0.0.0 \
    SHIPSHAPE_DATABASE_URL=sqlite+aiosqlite:////data/shipshape.db
USER 10001:10001
VOLUME /data
EXPOSE 3978
HEALTHCHECK --start-period=20s CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ.get('SHIPSHAPE_PORT', 3978)}/healthz\", timeout=5)"]
ENTRYPOINT ["python", "-m", "bot"]
CMD ["serve"]
